use super::*;

const IDENTITY: &[&[u8]] = &[b"application", b"acme", b"app"];

fn key(digit: char) -> SealingKey {
    SealingKey::from_hex(&digit.to_string().repeat(64)).unwrap()
}

fn secrets() -> UploadedSecrets {
    let mut secrets = UploadedSecrets::default();
    secrets.insert("apns_p12", Secret::new(vec![0, 1, 2, 255]));
    secrets.insert("apns_p12_pass", Secret::new(b"sesame".to_vec()));
    secrets
}

#[test]
fn what_is_sealed_opens_again_and_does_not_show() {
    let sealed = key('a').seal(&secrets(), IDENTITY).unwrap();
    assert!(!sealed.windows(6).any(|window| window == b"sesame"));
    let opened = key('a').open(&sealed, IDENTITY).unwrap();
    assert_eq!(opened.get("apns_p12"), Some(&[0, 1, 2, 255][..]));
    assert_eq!(opened.get("apns_p12_pass"), Some(&b"sesame"[..]));
    assert_ne!(sealed, key('a').seal(&secrets(), IDENTITY).unwrap(), "never the same twice");
}

#[test]
fn another_key_or_record_or_a_changed_byte_does_not_open() {
    let sealed = key('a').seal(&secrets(), IDENTITY).unwrap();
    assert_eq!(key('b').open(&sealed, IDENTITY).err(), Some(SealError::NotOurs));
    let others: [&[&[u8]]; 4] = [
        &[b"application", b"acme", b"other"],
        &[b"application", b"acm", b"eapp"],
        &[b"application", b"acme"],
        &[b"application", b"acme", b"app", b""],
    ];
    for identity in others {
        assert_eq!(key('a').open(&sealed, identity).err(), Some(SealError::NotOurs));
    }
    for at in 1..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(key('a').open(&changed, IDENTITY).err(), Some(SealError::NotOurs), "byte {at}");
    }
    assert_eq!(key('a').open(&[9; 100], IDENTITY).err(), Some(SealError::Newer));
    for length in 1..sealed.len() {
        assert!(key('a').open(&sealed[..length], IDENTITY).is_err());
    }
}

#[test]
fn resealed_it_opens_with_the_new_key_alone() {
    let sealed = key('a').seal(&secrets(), IDENTITY).unwrap();
    let resealed = key('a').reseal(&sealed, IDENTITY, &key('b')).unwrap();
    assert!(key('b').open(&resealed, IDENTITY).is_ok());
    assert_eq!(key('a').open(&resealed, IDENTITY).err(), Some(SealError::NotOurs));
}

#[test]
fn a_key_is_64_hex_digits() {
    for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
        assert_eq!(SealingKey::from_hex(wrong).err(), Some(SealError::InvalidKey));
    }
    assert!(SealingKey::from_hex(&format!("{}\n", "0".repeat(64))).is_ok());
}

#[test]
fn a_key_names_itself_and_no_two_are_alike() {
    let key = ApiKey::generate().unwrap();
    assert_eq!(KeyId::of_key(key.reveal()), Some(key.id()));
    assert_eq!(key.reveal().len(), 8 + 16 + 1 + 43);
    assert_ne!(ApiKey::generate().unwrap().reveal(), key.reveal());
    for wrong in ["", "pushlet_", "pushlet_0_x", "0123456789abcdef_x", "pushlet_0123456789ABCDEF_x"] {
        assert_eq!(KeyId::of_key(wrong), None, "{wrong}");
    }
}

#[test]
fn a_hash_fits_one_key_of_one_tenant() {
    let hasher = KeyHasher::generate().unwrap();
    let key = ApiKey::generate().unwrap();
    let hash = hasher.hash("acme", key.reveal());
    assert!(hasher.matches("acme", key.reveal(), &hash));
    assert!(!hasher.matches("other", key.reveal(), &hash));
    assert!(!hasher.matches("acme", &format!("{}x", key.reveal()), &hash));
    assert!(!KeyHasher::generate().unwrap().matches("acme", key.reveal(), &hash));
    let mac = hasher.authenticate(&[b"tenants", b"acme"]);
    assert!(hasher.is_authentic(&[b"tenants", b"acme"], &mac));
    assert!(!hasher.is_authentic(&[b"tenantsa", b"cme"], &mac));
    assert!(!KeyHasher::generate().unwrap().is_authentic(&[b"tenants", b"acme"], &mac));
    let mut copy = UploadedSecrets::default();
    copy.insert(HASH_KEY_FIELD, Secret::new(hasher.secret().get(HASH_KEY_FIELD).unwrap().to_vec()));
    assert!(KeyHasher::new(copy).unwrap().matches("acme", key.reveal(), &hash));
}
