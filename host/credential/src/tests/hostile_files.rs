use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const PBES2: &str = "06092a864886f70d01050d";
const PBKDF2: &str = "06092a864886f70d01050c";
const SCRYPT: &str = "06092b06010401da47040b";
const AES_256_CBC: &str = "060960864801650304012a";
const DES_EDE3_CBC: &str = "06082a864886f70d0307";
const SALT: &str = "04080102030405060708";

fn element(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    [vec![tag, u8::try_from(body.len()).unwrap()], body].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, parts)
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// What is said about an encrypted key (RFC 8018 appendix A) with these algorithms.
fn why_refused(derivation: Vec<u8>, cipher: Vec<u8>) -> String {
    let algorithm = sequence(&[bytes(PBES2), sequence(&[derivation, cipher])]);
    let key = sequence(&[algorithm, element(0x04, &[vec![0; 16]])]);
    let key = STANDARD.encode(key);
    let file = format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{key}\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let error = refuse(&[certificate_kind()], &[("apns_pem", file.as_bytes()), ("apns_p12_pass", b"secret")]);
    error.message.rsplit(" is valid").next().unwrap().trim_start_matches(": ").to_owned()
}

fn pbkdf2() -> Vec<u8> {
    sequence(&[bytes(PBKDF2), sequence(&[bytes(SALT), bytes("020101")])])
}

/// scrypt with these encodings of N, r and p.
fn scrypt(parameters: &str) -> Vec<u8> {
    sequence(&[bytes(SCRYPT), sequence(&[bytes(SALT), bytes(parameters)])])
}

fn aes() -> Vec<u8> {
    sequence(&[bytes(AES_256_CBC), element(0x04, &[vec![0; 16]])])
}

#[test]
fn refuses_algorithm_parameters_that_make_no_sense() {
    assert_eq!(why_refused(pbkdf2(), aes()), "wrong password", "these are sound");
    assert_eq!(why_refused(scrypt("020110020108020101"), aes()), "wrong password", "these are sound");
    let short_iv = |cipher: &str| sequence(&[bytes(cipher), element(0x04, &[vec![0; 4]])]);
    assert_eq!(why_refused(pbkdf2(), short_iv(DES_EDE3_CBC)), "");
    assert_eq!(why_refused(pbkdf2(), short_iv(AES_256_CBC)), "");
    assert_eq!(why_refused(scrypt("020100020108020101"), aes()), "", "N is 0");
    assert_eq!(why_refused(scrypt("020111020108020101"), aes()), "", "N is no power of two");
    let much = "its key derivation asks for too many iterations";
    assert_eq!(why_refused(scrypt("02021000020108020200ff"), aes()), much, "p is 255");
    let costly = sequence(&[bytes(PBKDF2), sequence(&[bytes(SALT), bytes("02047fffffff")])]);
    assert_eq!(why_refused(costly, aes()), much);
    // Rounds of HMAC-SHA-512 (RFC 8018 appendix B.1.2) count twice.
    let rounds = |prf: &str, count: &str| {
        let prf = sequence(&[bytes(prf), bytes("0500")]);
        sequence(&[bytes(PBKDF2), sequence(&[bytes(SALT), bytes(count), prf])])
    };
    let (sha256, sha512) = ("06082a864886f70d0209", "06082a864886f70d020b");
    assert_eq!(why_refused(rounds(sha512, "02030f4241"), aes()), much, "1,000,001");
    assert_eq!(why_refused(rounds(sha256, "02031e8481"), aes()), much, "2,000,001");
    assert_eq!(why_refused(rounds(sha256, "02020800"), aes()), "wrong password", "2048");
}

/// Sound files of each kind, to be damaged.
fn sound_files() -> Vec<(&'static str, Vec<u8>)> {
    let workshop = Workshop::new();
    workshop.identity(EC);
    let export = "-inkey key.pem -in cert.pem -certfile ca.pem -iter 1 -out id.p12 -passout pass:secret";
    let mut files = Vec::new();
    for variant in ["-legacy", "-keypbe AES-256-CBC -certpbe AES-256-CBC", "-keypbe NONE -certpbe NONE"] {
        // Without a MAC, damage reaches what is behind it.
        workshop.openssl(&format!("pkcs12 -export {export} -nomac {variant}"));
        files.push(("apns_p12", workshop.read("id.p12")));
    }
    workshop.openssl("pkcs8 -topk8 -iter 1 -v2 des3 -in key.pem -out form.pem -passout pass:secret");
    files.push(("apns_pem", [workshop.read("form.pem"), workshop.read("cert.pem")].concat()));
    files.push(("apns_p8", workshop.openssl("pkcs8 -topk8 -nocrypt -in key.pem -outform DER")));
    workshop.openssl(&format!("genpkey {RSA} -out rsa.pem"));
    files.push(("fcm_service_account", service_account(&workshop.read("rsa.pem")).to_string().into_bytes()));
    files
}

/// Any damage gives a credential or an error that names the field.
#[test]
fn survives_damaged_files() {
    let files = sound_files();
    let kinds = [certificate_kind(), token_kind(), account_kind()];
    for (field, file) in &files {
        assert!(parse(&kinds, &[(*field, file), ("apns_p12_pass", b"secret")]).is_ok(), "{field} is sound");
    }
    let damage = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4);
    let strategy =
        (any::<proptest::sample::Index>(), damage, any::<proptest::sample::Index>(), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let result = runner.run(&strategy, |(which, damage, end, cut)| {
        let (field, mut file) = which.get(&files).clone();
        for (place, value) in damage {
            let place = place.index(file.len());
            file[place] = value;
        }
        if cut {
            file.truncate(end.index(file.len()));
        }
        if let Err(error) = parse(&kinds, &[(field, &file), ("apns_p12_pass", b"secret")]) {
            prop_assert_eq!(error.field, field);
        }
        Ok(())
    });
    result.unwrap();
}
