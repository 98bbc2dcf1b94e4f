use super::*;

const NOT_P8: &str = "could not process apns_p8 key, check that it is in p8 format and is valid";
const NOT_ACCOUNT: &str =
    "could not process fcm_service_account, check that it is a service account in json format and is valid";

fn why_no_key(file: &[u8]) -> String {
    let error = refuse(&[token_kind()], &[("apns_p8", file)]);
    assert_eq!(error.code, "invalid_apns_p8");
    error.message.strip_prefix(NOT_P8).unwrap().trim_start_matches(": ").to_owned()
}

#[test]
fn reads_p8_keys() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    workshop.openssl("pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der");
    let pem = workshop.read("key.pem");
    let text = String::from_utf8(pem.clone()).unwrap();
    let frameless: String =
        text.lines().filter(|line| !line.starts_with("-----")).map(|line| format!("{line}\r\n")).collect();
    let fingerprints =
        [pem, workshop.read("key.der"), frameless.into_bytes(), text.replace('\n', "\r\n").into_bytes()]
            .map(|file| accept(&[token_kind()], &[("apns_p8", &file)]).summary().fingerprint);
    assert!(fingerprints.iter().all(|fingerprint| fingerprint.is_some() && *fingerprint == fingerprints[0]));
}

#[test]
fn says_what_is_wrong_with_a_p8_key() {
    let workshop = Workshop::new();
    let why = |key: &str| {
        workshop.openssl(&format!("genpkey {key} -out key.pem"));
        why_no_key(&workshop.read("key.pem"))
    };
    assert_eq!(why(RSA), "it holds an RSA key; an EC key on P-256 is needed");
    let p384 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
    assert_eq!(why(p384), "it holds an EC key on P-384; one on P-256 is needed");
    let p521 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-521";
    assert_eq!(why(p521), "it holds an EC key on another curve than P-256");
    assert_eq!(why("-algorithm ED25519"), "it holds a key of kind 1.3.101.112; an EC key on P-256 is needed");
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    workshop.openssl("pkcs8 -topk8 -in key.pem -out locked.pem -passout pass:secret");
    assert_eq!(why_no_key(&workshop.read("locked.pem")), "it has a password; upload it without one");
    workshop.openssl("pkey -in key.pem -traditional -out sec1.pem");
    assert!(
        why_no_key(&workshop.read("sec1.pem")).starts_with("its EC key is not in PKCS#8; convert it with: ")
    );
    workshop.openssl("pkey -in key.pem -pubout -out public.pem");
    assert_eq!(why_no_key(&workshop.read("public.pem")), "it holds no private key");
    let key = workshop.read("key.pem");
    assert_eq!(why_no_key(&[key.clone(), key].concat()), "it holds more than one private key");
    assert_eq!(why_no_key(b"garbage!"), "");
    assert_eq!(why_no_key(b"\x00\xff\xfe"), "");
}

#[test]
fn reads_service_accounts() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    workshop.openssl("pkey -traditional -in key.pem -out pkcs1.pem");
    for key in ["key.pem", "pkcs1.pem"] {
        let file = service_account(&workshop.read(key)).to_string();
        let credential = accept(&[account_kind()], &[("fcm_service_account", file.as_bytes())]);
        let derive = |name: &str| {
            let property = Property::ServiceAccountProperty(name.to_owned());
            credential.derive(&Derivation { setting: "setting".to_owned(), property })
        };
        assert_eq!(derive("project_id").as_deref(), Some("example-project"));
        assert_eq!(derive("private_key"), None, "a provider sees settings");
        let summary = credential.summary();
        assert_eq!(summary.subject.as_deref(), Some("push@example-project.iam.gserviceaccount.com"));
        assert_eq!(summary.not_after, None);
    }
}

#[test]
fn says_what_is_wrong_with_a_service_account() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let sound = service_account(&workshop.read("key.pem"));
    let why = |file: &str| {
        let error = refuse(&[account_kind()], &[("fcm_service_account", file.as_bytes())]);
        assert_eq!(error.code, "invalid_fcm_service_account");
        error.message.strip_prefix(NOT_ACCOUNT).unwrap().trim_start_matches(": ").to_owned()
    };
    let with = |name: &str, value: &str| {
        let mut file = sound.clone();
        file[name] = value.into();
        why(&file.to_string())
    };
    let without = |name: &str| {
        let mut file = sound.clone();
        file.as_object_mut().unwrap().remove(name);
        why(&file.to_string())
    };
    assert_eq!(why("{\"type\": "), "it is not JSON (line 1, column 9)");
    assert_eq!(why("[]"), "it is not a JSON object");
    assert_eq!(with("type", "something_else"), "its type is not service_account");
    for name in ["private_key", "client_email", "token_uri", "private_key_id", "project_id"] {
        assert_eq!(without(name), format!("it has no {name}"));
    }
    for url in ["http://oauth2.googleapis.com/token", "https://user@example.com/", "https://", "token"] {
        assert_eq!(with("token_uri", url), "its token_uri is not the https URL of a token endpoint");
    }
    assert_eq!(with("private_key", "garbage!"), "its private_key cannot be read");
    workshop.openssl(&format!("genpkey {EC} -out ec.pem"));
    let ec = String::from_utf8(workshop.read("ec.pem")).unwrap();
    assert_eq!(with("private_key", &ec), "its private key is not an RSA key");
    workshop.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out short.pem");
    let short = String::from_utf8(workshop.read("short.pem")).unwrap();
    assert_eq!(with("private_key", &short), "its RSA key is too short; at least 2048 bits are needed");
}

#[test]
fn checks_text_secrets() {
    let credential = accept(&[key_kind()], &[("gcm_api_key", b" AIza-example \r\n")]);
    assert_eq!(credential.text("gcm_api_key"), Some(b"AIza-example".as_slice()));
    assert_eq!(credential.summary().fingerprint, None, "a text could be guessed from it");
    let why = |text: &[u8]| refuse(&[key_kind()], &[("gcm_api_key", text)]).message;
    let prefix = "could not process gcm_api_key, check that it is plain text";
    assert_eq!(why(b" \n "), format!("{prefix}: it is empty"));
    assert_eq!(why(&[b'a'; 4097]), format!("{prefix}: it is longer than 4096 bytes"));
    for text in [b"two\r\nlines".as_slice(), b"nul\0", "ümlaut".as_bytes(), b"\xff"] {
        assert_eq!(why(text), format!("{prefix}: it holds characters other than printable ASCII"));
    }
}

#[test]
fn names_the_other_files_that_google_hands_out() {
    let why = |file: serde_json::Value| {
        let file = file.to_string();
        let error = refuse(&[account_kind()], &[("fcm_service_account", file.as_bytes())]);
        error.message.strip_prefix(NOT_ACCOUNT).unwrap().trim_start_matches(": ").to_owned()
    };
    let of_type = |kind: &str| why(serde_json::json!({"type": kind, "refresh_token": "1//secret"}));
    let hint = "download a service account's key from the project's settings instead";
    let external = "it is an external_account, which is for workload identity federation and holds no key";
    assert_eq!(of_type("external_account"), format!("{external}; {hint}"));
    let person = "it is an authorized_user, which is a person's login (gcloud auth)";
    assert_eq!(of_type("authorized_user"), format!("{person}; {hint}"));
    let android =
        serde_json::json!({"project_info": {"project_id": "p"}, "client": [], "configuration_version": "1"});
    let is_android = "it is a google-services.json, which is for Android apps and holds no key";
    assert_eq!(why(android), format!("{is_android}; {hint}"));
    let oauth = serde_json::json!({"installed": {"client_secret": "s"}});
    assert_eq!(why(oauth), format!("it is the id of an OAuth client; {hint}"));
    let error = refuse(&[account_kind()], &[("fcm_service_account", b"<?xml version=\"1.0\"?><plist/>")]);
    assert!(error.message.contains("GoogleService-Info.plist"), "{error}");
}

#[test]
fn a_service_account_may_begin_with_a_byte_order_mark() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let file = service_account(&workshop.read("key.pem")).to_string();
    let marked = [b"\xef\xbb\xbf", file.as_bytes()].concat();
    let credential = accept(&[account_kind()], &[("fcm_service_account", &marked)]);
    assert_eq!(credential.summary().subject.as_deref(), Some("push@example-project.iam.gserviceaccount.com"));
}

#[test]
fn keys_as_web_push_tools_write_them() {
    let kind = {
        let token = SignedToken {
            key: "key".into(),
            algorithm: SigningAlgorithm::Es256,
            header: Vec::new(),
            claims: Vec::new(),
            lifetime: minutes(60),
            minimum_age: 0,
        };
        let secrets = vec![secret("key", SecretFormat::P256Key, None)];
        kind("vapid", secrets, Authentication::Vapid(token))
    };
    check_manifest(std::slice::from_ref(&kind)).unwrap();
    let public = |file: &[u8]| {
        let credential = accept(std::slice::from_ref(&kind), &[("key", file)]);
        let property = Property::PublicKey;
        credential.derive(&Derivation { setting: "public".into(), property }).unwrap()
    };
    // SHA-256 of a text as the scalar, and its point: computed with Python's `cryptography`.
    let known = "BC7b9RZqD_BbsUk2rPSAhwy5VQ_1lqHfiTGArA2IUj4o0C9D_E5mS6ZhTlCwp60uR_6VW_2-weD5zPV6iO6JuHw";
    assert_eq!(public(b"MSeHolnS5etocO42hBrQMsQGyDk7skgxfmOr5AjrTYY"), known);
    assert_eq!(public(b" MSeHolnS5etocO42hBrQMsQGyDk7skgxfmOr5AjrTYY=\n"), known);
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    workshop.openssl("ec -in key.pem -out sec1.pem");
    assert_eq!(public(&workshop.read("key.pem")), public(&workshop.read("sec1.pem")));
    // No base64url of 32 bytes; zero, which is no private key; too short.
    for wrong in ["_".repeat(43), "A".repeat(43), "MSeH".to_owned()] {
        let error = refuse(std::slice::from_ref(&kind), &[("key", wrong.as_bytes())]);
        assert_eq!(error.code, "invalid_key");
    }
}
