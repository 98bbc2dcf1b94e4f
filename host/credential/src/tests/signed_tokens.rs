use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Value, json};

use super::access_tokens::Endpoint;
use super::*;

const ORIGIN: &str = "https://push.example.net:8443";

/// What `authorize` gives for one exchange, as text.
async fn header(
    credential: &Credential,
    kind: &CredentialKind,
    settings: &[(String, String)],
) -> Result<(String, HeaderValue), AuthorizeError> {
    check_manifest(std::slice::from_ref(kind)).unwrap();
    let authorizer = authorizer(Endpoint::silent());
    let token_trust = &Untrusted;
    let exchange = AuthorizeRequest {
        tenant: tenant(),
        credential,
        kind,
        settings,
        origin: ORIGIN,
        token_trust,
        request: None,
    };
    match authorizer.authorize(exchange, &ClockReading::now(), soon()).await? {
        Authorization::Header { name, value, .. } => Ok((name.to_string(), value)),
        _ => panic!("no header"),
    }
}

/// Header and claims of a JWT, after `openssl` found its signature good.
fn verify(workshop: &Workshop, token: &str, options: &str) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let mut signature = decode(parts[2]);
    if options.is_empty() {
        assert_eq!(signature.len(), 64, "ES256 is r and s as they are");
        signature = ecdsa_der(&signature);
    }
    workshop.write("message", format!("{}.{}", parts[0], parts[1]));
    workshop.write("signature", signature);
    workshop.openssl("pkey -in key.pem -pubout -out public.pem");
    workshop.openssl(&format!("dgst -sha256 -verify public.pem {options} -signature signature message"));
    let json = |part: &str| serde_json::from_slice(&decode(part)).unwrap();
    (json(parts[0]), json(parts[1]))
}

/// RFC 3279 section 2.2.3, which `openssl` verifies.
fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap();
        let mut digits = bytes[start..].to_vec();
        if digits[0] >= 0x80 {
            digits.insert(0, 0);
        }
        [vec![0x02, digits.len() as u8], digits].concat()
    };
    let body = [integer(&raw[..32]), integer(&raw[32..])].concat();
    [vec![0x30, body.len() as u8], body].concat()
}

fn now() -> u64 {
    ClockReading::now().unix_seconds()
}

#[tokio::test]
async fn makes_apples_provider_token() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    let credential = accept(&[token_kind()], &[("apns_p8", &workshop.read("key.pem"))]);
    let settings = settings(&[("apns_key_id", "ABC123DEFG"), ("apns_team_id", "DEF123GHIJ")]);
    let before = ClockReading::now().rounded_down(Duration::from_secs(40 * 60)).unix_seconds();
    let (name, value) = header(&credential, &token_kind(), &settings).await.unwrap();
    assert_eq!(name, "authorization");
    assert!(value.is_sensitive());
    let token = value.to_str().unwrap().strip_prefix("bearer ").unwrap();
    let (header, claims) = verify(&workshop, token, "");
    assert_eq!(header, json!({"alg": "ES256", "kid": "ABC123DEFG"}));
    assert_eq!(claims["iss"], "DEF123GHIJ");
    let issued = claims["iat"].as_u64().unwrap();
    assert!((before..=now()).contains(&issued) && issued % (40 * 60) == 0, "{issued}");
    assert_eq!(claims.as_object().unwrap().len(), 2);
}

/// HMS v3 takes a token signed with PS256 as it is.
#[tokio::test]
async fn signs_with_ps256() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
    let property = |name: &str| Source::SecretProperty(("account".to_owned(), name.to_owned()));
    let token = SignedToken {
        key: "account".to_owned(),
        algorithm: SigningAlgorithm::Ps256,
        header: named(&[("kid", property("key_id"))]),
        claims: named(&[
            ("iss", property("sub_account")),
            ("aud", Source::Literal("\"https://oauth.example.com/token\"".to_owned())),
            ("exp", Source::ExpiresAt),
            ("jti", Source::UniqueId),
        ]),
        lifetime: minutes(60),
        minimum_age: 0,
    };
    let secrets = vec![secret("account", SecretFormat::ServiceAccount, None)];
    let kind = kind("account", secrets, Authentication::SignedToken((token, place("Bearer "))));
    let private_key = String::from_utf8(workshop.read("key.pem")).unwrap();
    let file = json!({"key_id": "k1", "sub_account": "s1", "private_key": private_key}).to_string();
    let credential = accept(std::slice::from_ref(&kind), &[("account", file.as_bytes())]);
    let before = now();
    let (_, value) = header(&credential, &kind, &[]).await.unwrap();
    let token = value.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let pss = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
    let (header, claims) = verify(&workshop, token, pss);
    assert_eq!(header, json!({"alg": "PS256", "kid": "k1"}));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("s1"), &json!("https://oauth.example.com/token")));
    assert!((before + 3600..=now() + 3600).contains(&claims["exp"].as_u64().unwrap()));
    assert_eq!(claims["jti"].as_str().unwrap().len(), 36);
}

/// RFC 8292: the audience is the origin of the push service, the key stands beside the token.
#[tokio::test]
async fn makes_vapid_headers() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    let token = SignedToken {
        key: "vapid_key".to_owned(),
        algorithm: SigningAlgorithm::Es256,
        header: named(&[("typ", Source::Literal("\"JWT\"".to_owned()))]),
        claims: named(&[
            ("aud", Source::TargetOrigin),
            ("exp", Source::ExpiresAt),
            ("sub", Source::Setting("vapid_subject".to_owned())),
        ]),
        lifetime: minutes(12 * 60),
        minimum_age: 0,
    };
    let secrets = vec![secret("vapid_key", SecretFormat::Pkcs8Key, None)];
    let kind = kind("vapid", secrets, Authentication::Vapid(token));
    let credential = accept(std::slice::from_ref(&kind), &[("vapid_key", &workshop.read("key.pem"))]);
    let settings = settings(&[("vapid_subject", "mailto:push@example.com")]);
    let (name, value) = header(&credential, &kind, &settings).await.unwrap();
    assert_eq!(name, "authorization");
    let text = value.to_str().unwrap().strip_prefix("vapid t=").unwrap();
    let (token, public) = text.split_once(", k=").unwrap();
    let (_, claims) = verify(&workshop, token, "");
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!(ORIGIN), &json!("mailto:push@example.com")));
    let point = workshop.openssl("pkey -in key.pem -pubout -outform DER");
    assert_eq!(URL_SAFE_NO_PAD.decode(public).unwrap(), point[point.len() - 65..]);
}

#[tokio::test]
async fn puts_text_secrets_into_headers() {
    let credential = accept(&[key_kind()], &[("gcm_api_key", b"AIza-example")]);
    let (name, value) = header(&credential, &key_kind(), &[]).await.unwrap();
    assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "key=AIza-example"));
    assert!(value.is_sensitive());
}

#[tokio::test]
async fn hands_out_the_client_certificate() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    let file = [workshop.read("key.pem"), workshop.read("cert.pem")].concat();
    let credential = accept(&[certificate_kind()], &[("apns_pem", &file)]);
    let authorizer = authorizer(Endpoint::silent());
    let kind = certificate_kind();
    let exchange = AuthorizeRequest {
        tenant: tenant(),
        credential: &credential,
        kind: &kind,
        settings: &[],
        origin: ORIGIN,
        token_trust: &Untrusted,
        request: None,
    };
    match authorizer.authorize(exchange, &ClockReading::now(), soon()).await.ok().unwrap() {
        Authorization::ClientCertificate(certificate) => {
            assert_eq!(&certificate.fingerprint, credential.fingerprint());
        }
        _ => panic!("no certificate"),
    }
}

#[tokio::test]
async fn says_which_setting_is_missing() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    let credential = accept(&[token_kind()], &[("apns_p8", &workshop.read("key.pem"))]);
    for given in [settings(&[("apns_key_id", "K")]), settings(&[("apns_key_id", "K"), ("apns_team_id", "")])]
    {
        let error = header(&credential, &token_kind(), &given).await.err().unwrap();
        assert_eq!(error, AuthorizeError::MissingSetting("apns_team_id".to_owned()));
    }
}

/// A credential outlives the manifest it was parsed for: a new version of the component may differ.
#[tokio::test]
async fn refuses_a_manifest_that_asks_for_another_secret() {
    let workshop = Workshop::new();
    workshop.openssl(&format!("genpkey {EC} -out key.pem"));
    let credential = accept(&[token_kind()], &[("apns_p8", &workshop.read("key.pem"))]);
    for kind in [certificate_kind(), key_kind(), account_kind()] {
        let error = match header(&credential, &kind, &[]).await {
            Ok(_) => panic!("it was accepted"),
            Err(error) => error,
        };
        assert!(matches!(error, AuthorizeError::Manifest(_)), "{error}");
    }
}
