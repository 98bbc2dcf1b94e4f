use serde::Serialize;

use super::access_tokens::Endpoint;
use super::*;

/// Compiles only while `$type` implements none of the traits: with any of them, the call is ambiguous.
macro_rules! assert_lacks {
    ($type:ty: $($trait:path),+) => {{
        trait Ambiguous<Marker> { fn check() {} }
        impl<T: ?Sized> Ambiguous<()> for T {}
        $({
            #[allow(dead_code)]
            struct Marker;
            impl<T: ?Sized + $trait> Ambiguous<Marker> for T {}
        })+
        <$type as Ambiguous<_>>::check();
    }};
}

#[test]
fn secret_types_cannot_be_shown() {
    assert_lacks!(Secret: std::fmt::Debug, std::fmt::Display, Serialize, Clone);
    assert_lacks!(UploadedSecrets: std::fmt::Debug, Serialize, Clone);
    assert_lacks!(Credential: std::fmt::Debug, std::fmt::Display, Serialize, Clone);
    assert_lacks!(TokenKey: std::fmt::Debug, Serialize, Clone);
    assert_lacks!(ServiceAccount: std::fmt::Debug, Serialize, Clone);
    assert_lacks!(CertificateIdentity: std::fmt::Debug, Serialize);
    assert_lacks!(ClientCertificate: std::fmt::Debug, Serialize);
    assert_lacks!(crate::files::keys::KeyDer: std::fmt::Debug, Clone);
    assert_lacks!(Authorization: std::fmt::Debug, Serialize);
    assert_lacks!(Authorizer: std::fmt::Debug);
    assert_lacks!(TokenRequest: std::fmt::Debug);
    assert_lacks!(TokenResponse: std::fmt::Debug);
}

/// The middle of a key's base64, which no output may hold.
fn core(pem: &[u8]) -> String {
    let text = String::from_utf8(pem.to_vec()).unwrap();
    text.lines().nth(2).unwrap().to_owned()
}

#[test]
fn errors_do_not_hold_the_secret() {
    let workshop = Workshop::new();
    workshop.identity(RSA);
    let key = workshop.read("key.pem");
    let planted = core(&key);
    let half = &key[..key.len() / 2];
    let account = service_account(&key);
    let mut numeric = account.clone();
    numeric["client_email"] = serde_json::json!([planted]);
    let mut typed = account.clone();
    typed["type"] = planted.clone().into();
    let cut = account.to_string();
    let kinds = [certificate_kind(), token_kind(), account_kind(), key_kind()];
    let attempts: [(&str, Vec<u8>); 10] = [
        ("apns_p12", key.clone()),
        ("apns_pem", key.clone()),
        ("apns_pem", half.to_vec()),
        ("apns_pem", [workshop.read("ca.pem"), key.clone()].concat()),
        ("apns_p8", key.clone()),
        ("apns_p8", half.to_vec()),
        ("fcm_service_account", cut.as_bytes()[..cut.len() - 40].to_vec()),
        ("fcm_service_account", numeric.to_string().into_bytes()),
        ("fcm_service_account", typed.to_string().into_bytes()),
        ("gcm_api_key", [planted.as_bytes(), "\u{fc}".as_bytes()].concat()),
    ];
    for (field, value) in attempts {
        let error = refuse(&kinds, &[(field, &value), ("apns_p12_pass", planted.as_bytes())]);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(&planted), "{field}: {shown}");
        assert!(!planted.as_bytes().windows(12).any(|part| shown.as_bytes().windows(12).any(|w| w == part)));
    }
}

#[test]
fn summaries_do_not_hold_the_secret() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let key = workshop.read("key.pem");
    let mut file = service_account(&key);
    file["client_secret"] = "planted-secret".into();
    file["backup"] = String::from_utf8(key.clone()).unwrap().into();
    let file = file.to_string();
    let credential = accept(&[account_kind()], &[("fcm_service_account", file.as_bytes())]);
    let shown =
        serde_json::to_string(&credential.summary()).unwrap() + &format!("{:?}", credential.summary());
    assert!(!shown.contains(&core(&key)));
    for name in ["private_key", "client_secret", "backup"] {
        let property = Property::ServiceAccountProperty(name.to_owned());
        assert_eq!(credential.derive(&Derivation { setting: "s".to_owned(), property }), None, "{name}");
    }
    let credential = accept(&[key_kind()], &[("gcm_api_key", b"planted-secret")]);
    assert!(!serde_json::to_string(&credential.summary()).unwrap().contains("planted"));
}

/// A hostile token endpoint repeats what it was sent.
#[tokio::test]
async fn refusals_do_not_repeat_the_assertion() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let file = service_account(&workshop.read("key.pem")).to_string();
    let credential = accept(&[account_kind()], &[("fcm_service_account", file.as_bytes())]);
    let echo = r#"{"error": "invalid_grant", "error_description": "bad request: {request}"}"#;
    let authorizer = authorizer(Endpoint::new([(400, echo.to_owned())]));
    let kind = account_kind();
    let exchange = AuthorizeRequest {
        tenant: tenant(),
        credential: &credential,
        kind: &kind,
        settings: &[],
        origin: "https://fcm",
        token_trust: &Untrusted,
        request: None,
    };
    let error = authorizer.authorize(exchange, &ClockReading::now(), soon()).await.err().unwrap();
    assert_eq!(error, AuthorizeError::Refused { code: "invalid_grant".to_owned(), description: None });
}
