//! Several certificates in one file: the one that pushes is chosen, and what cannot push is refused with the reason.

use super::*;

const DEVELOPMENT: &str = "1.2.840.113635.100.6.3.1=ASN1:NULL\n";
const PRODUCTION: &str = "1.2.840.113635.100.6.3.2=ASN1:NULL\n";
const VOIP: &str = "1.2.840.113635.100.6.3.4=ASN1:UTF8String:com.example.app.voip\n";
const CODE_SIGNING: &str = "extendedKeyUsage=codeSigning\n";

impl Workshop {
    /// A certificate for a key, with extensions: its PEM.
    fn certificate(&self, key: &str, uid: &str, extensions: &str, days: u32) -> Vec<u8> {
        self.write("extensions.cnf", format!("basicConstraints=CA:FALSE\n{extensions}"));
        self.openssl(&format!("req -new -key {key} -out one.csr -subj /UID={uid}/CN=Apple:{uid}"));
        self.openssl(&format!(
            "x509 -req -in one.csr -CA ca.pem -CAkey ca.key -out one.pem -days {days} -extfile extensions.cnf"
        ));
        self.read("one.pem")
    }
}

/// A certificate kind whose topic is read from the certificate.
fn push_kind() -> CredentialKind {
    let setting = "apns_topic".to_owned();
    let derivation = Derivation { setting, property: Property::CertificateSubjectUid };
    CredentialKind { derivations: vec![derivation], ..certificate_kind() }
}

/// A workshop with `key.pem` and `other.pem`.
fn workshop() -> Workshop {
    let workshop = Workshop::new();
    workshop.identity(EC);
    workshop.openssl(&format!("genpkey {EC} -out other.pem"));
    workshop
}

fn purpose(environment: Environment, topic: Option<&str>) -> CredentialPurpose {
    let settings = topic.map(|topic| ("apns_topic".to_owned(), topic.to_owned()));
    CredentialPurpose { environment, now: SystemTime::now(), settings: settings.into_iter().collect() }
}

/// The topic of the certificate that was chosen, or why none was.
fn choose(pem: &[&[u8]], purpose: &CredentialPurpose) -> Result<String, String> {
    let parsed = Credential::parse(&[push_kind()], &uploads(&[("apns_pem", &pem.concat())]), purpose);
    topic(parsed)
}

fn topic(parsed: Result<Option<Credential>, CredentialError>) -> Result<String, String> {
    match parsed {
        Ok(credential) => Ok(credential.unwrap().derive(&push_kind().derivations[0]).unwrap()),
        Err(error) => Err(error.message.split_once("is valid: ").unwrap().1.to_owned()),
    }
}

#[test]
fn the_push_certificate_is_chosen_before_one_of_the_team_that_ends_later() {
    let workshop = workshop();
    let both = [DEVELOPMENT, PRODUCTION].concat();
    let push = workshop.certificate("key.pem", "com.example.app", &both, 100);
    workshop.write("push.pem", &push);
    for extensions in ["", CODE_SIGNING] {
        let team = workshop.certificate("key.pem", "TEAM123456", extensions, 900);
        let key = workshop.read("key.pem");
        for pem in [[&key[..], &push, &team], [&team, &push, &key], [&team, &key, &push]] {
            for environment in [Environment::Production, Environment::Development] {
                assert_eq!(choose(&pem, &purpose(environment, None)).as_deref(), Ok("com.example.app"));
            }
        }
        // In PKCS#12 too, even where the file names the wrong certificate as the key's own.
        workshop.write("team.pem", &team);
        for (own, other) in [("push.pem", "team.pem"), ("team.pem", "push.pem")] {
            workshop.openssl(&format!(
                "pkcs12 -export -inkey key.pem -in {own} -certfile {other} -out id.p12 -passout pass:''"
            ));
            let p12 = uploads(&[("apns_p12", &workshop.read("id.p12"))]);
            let parsed = Credential::parse(&[push_kind()], &p12, &purpose(Environment::Production, None));
            assert_eq!(topic(parsed).as_deref(), Ok("com.example.app"), "{own}");
        }
    }
}

#[test]
fn the_environment_decides_before_the_end() {
    let workshop = workshop();
    let development = workshop.certificate("key.pem", "com.example.app", DEVELOPMENT, 900);
    let production = workshop.certificate("other.pem", "com.example.app", PRODUCTION, 100);
    let keys = [workshop.read("key.pem"), workshop.read("other.pem")].concat();
    let chosen = |environment| {
        let pem = [&keys[..], &development, &production].concat();
        let parsed =
            Credential::parse(&[push_kind()], &uploads(&[("apns_pem", &pem)]), &purpose(environment, None));
        parsed.unwrap().unwrap().summary().environments
    };
    assert_eq!(chosen(Environment::Production), ["production"]);
    assert_eq!(chosen(Environment::Development), ["development"]);
}

#[test]
fn what_cannot_push_in_the_environment_is_refused_with_the_reason() {
    let workshop = workshop();
    let key = workshop.read("key.pem");
    let why = |extensions, uid, environment| {
        let certificate = workshop.certificate("key.pem", uid, extensions, 100);
        choose(&[&key, &certificate], &purpose(environment, None))
    };
    let alone = |other: &str, wanted: &str| {
        Err(format!(
            "its certificate (com.example.app) is for Apple's {other} environment alone and cannot push in \
             {wanted}: register it for {other}, or upload one for {wanted}"
        ))
    };
    let app = "com.example.app";
    assert_eq!(why(DEVELOPMENT, app, Environment::Production), alone("development", "production"));
    assert_eq!(why(PRODUCTION, app, Environment::Development), alone("production", "development"));
    assert_eq!(why(DEVELOPMENT, app, Environment::Development).as_deref(), Ok(app));
    assert_eq!(why(PRODUCTION, app, Environment::Production).as_deref(), Ok(app));
    let voip = why(VOIP, "com.example.app.voip", Environment::Development);
    assert_eq!(voip.as_deref(), Ok("com.example.app.voip"));
    assert_eq!(
        why("", "TEAM123456", Environment::Production).unwrap_err(),
        "its certificate is a developer's or distributor's of the team TEAM123456, not a push certificate"
    );
    assert_eq!(
        why(CODE_SIGNING, app, Environment::Production).unwrap_err(),
        "its certificate is not for TLS clients (extended key usage), so it cannot push"
    );
}

#[test]
fn the_topic_decides_between_apps_and_without_it_nothing_is_guessed() {
    let workshop = workshop();
    let both = [DEVELOPMENT, PRODUCTION].concat();
    let one = workshop.certificate("key.pem", "com.example.one", &both, 100);
    let two = workshop.certificate("other.pem", "com.example.two", &both, 900);
    let (key, other) = (workshop.read("key.pem"), workshop.read("other.pem"));
    let chosen = |topic| choose(&[&key, &one, &other, &two], &purpose(Environment::Production, topic));
    assert_eq!(chosen(Some("com.example.one")).as_deref(), Ok("com.example.one"));
    assert_eq!(chosen(Some("com.example.two")).as_deref(), Ok("com.example.two"));
    assert_eq!(
        chosen(None).unwrap_err(),
        "it holds certificates of several topics: com.example.one, com.example.two; \
         name one as apns_topic, or export one alone"
    );
    assert_eq!(
        chosen(Some("com.example.six")).unwrap_err(),
        "none of its certificates is for the apns_topic com.example.six; \
         they are for com.example.one, com.example.two"
    );
}

#[test]
fn pkcs12_names_the_certificate_of_a_key() {
    let workshop = workshop();
    // Two of one key and no marks: `-in` is the one that openssl gives the key's id.
    let one = workshop.certificate("key.pem", "com.example.one", "", 100);
    let two = workshop.certificate("key.pem", "com.example.two", "", 900);
    workshop.write("one.pem", one);
    workshop.write("two.pem", two);
    for (own, other, expected) in
        [("one.pem", "two.pem", "com.example.one"), ("two.pem", "one.pem", "com.example.two")]
    {
        workshop.openssl(&format!(
            "pkcs12 -export -inkey key.pem -in {own} -certfile {other} -out id.p12 -passout pass:''"
        ));
        let p12 = uploads(&[("apns_p12", &workshop.read("id.p12"))]);
        let parsed = Credential::parse(&[push_kind()], &p12, &purpose(Environment::Production, None));
        assert_eq!(topic(parsed).as_deref(), Ok(expected));
    }
}

#[test]
fn an_expired_certificate_gives_way_to_a_valid_one() {
    let workshop = workshop();
    let valid = workshop.certificate("key.pem", "com.example.app", PRODUCTION, 10);
    let later = workshop.certificate("key.pem", "com.example.app", PRODUCTION, 20);
    let pem = [workshop.read("key.pem"), later, valid].concat();
    let at = |days: u64| {
        let now = SystemTime::now() + Duration::from_secs(days * 86_400);
        let purpose = CredentialPurpose { now, ..purpose(Environment::Production, None) };
        Credential::parse(&[push_kind()], &uploads(&[("apns_pem", &pem)]), &purpose)
    };
    assert!(at(15).is_ok());
    assert!(at(25).err().unwrap().message.contains("the certificate expired on "));
}

/// OpenSSL writes the names of PKCS#12 entries as they are, in whatever encoding, between the sections.
#[test]
fn bytes_between_pem_sections_are_not_text() {
    let workshop = workshop();
    let certificate = workshop.certificate("key.pem", "com.example.app", PRODUCTION, 100);
    let name = b"Bag Attributes\n    friendlyName: Jos\xe9\n";
    let key = workshop.read("key.pem");
    let pem: [&[u8]; 5] = [name, &certificate, name, &key, name];
    assert_eq!(choose(&pem, &purpose(Environment::Production, None)).as_deref(), Ok("com.example.app"));
    let damaged = certificate.clone();
    let mut damaged = [&key[..], &damaged].concat();
    let place = damaged.len() - 60;
    damaged[place] = 0xe9;
    let why = choose(&[&damaged], &purpose(Environment::Production, None)).unwrap_err();
    assert_eq!(why, "the base64 of its certificate is damaged");
    let utf16: Vec<u8> = [&b"\xff\xfe"[..], &key].concat();
    let why = choose(&[&utf16], &purpose(Environment::Production, None)).unwrap_err();
    assert_eq!(why, "it is in UTF-16; save it as UTF-8 or ASCII");
}

/// As it stands in environment variables and in JSON that was escaped twice.
#[test]
fn line_breaks_may_be_written_as_two_characters() {
    let workshop = workshop();
    let certificate = workshop.certificate("key.pem", "com.example.app", PRODUCTION, 100);
    let escaped = |pem: &[u8], to: &str| String::from_utf8(pem.to_vec()).unwrap().replace('\n', to);
    for to in ["\\n", "\\r\\n"] {
        let pem = [escaped(&workshop.read("key.pem"), to), escaped(&certificate, to)].concat();
        let chosen = choose(&[pem.as_bytes()], &purpose(Environment::Production, None));
        assert_eq!(chosen.as_deref(), Ok("com.example.app"));
        accept(&[token_kind()], &[("apns_p8", escaped(&workshop.read("key.pem"), to).as_bytes())]);
        let bare: Vec<u8> = workshop
            .read("key.pem")
            .split(|byte| *byte == b'\n')
            .skip(1)
            .take(3)
            .fold(b"\xef\xbb\xbf".to_vec(), |all, line| [&all[..], line, to.as_bytes()].concat());
        accept(&[token_kind()], &[("apns_p8", &bare)]);
    }
    workshop.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    let account = service_account(escaped(&workshop.read("rsa.pem"), "\\n").as_bytes()).to_string();
    accept(&[account_kind()], &[("fcm_service_account", account.as_bytes())]);
}
