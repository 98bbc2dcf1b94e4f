//! Texts composed of secrets, settings, the time and the request, held against what the vendors publish.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::access_tokens::{Client, Endpoint};
use super::*;
use pushlet_model::contract::manifest::{
    BodyFormat, ComposedText, Composition, Digest, DigestAlgorithm, Encoding, Part, RequestField,
    TokenRequest,
};

/// A moment in milliseconds since the epoch.
fn at(milliseconds: u64) -> ClockReading {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
    ClockReading { wall, steady: Instant::now() }
}

fn literal(text: &str) -> Part {
    Part::Literal(text.to_owned())
}

fn setting(name: &str) -> Part {
    Part::Setting(name.to_owned())
}

fn secret_part(name: &str) -> Part {
    Part::Secret(name.to_owned())
}

fn text(parts: &[Part], encoding: Encoding) -> ComposedText {
    ComposedText { parts: parts.to_vec(), encoding }
}

fn header(name: &str, prefix: &str) -> Placement {
    Placement { place: Place::Header(name.to_owned()), prefix: prefix.to_owned() }
}

fn digest(algorithm: DigestAlgorithm, key: Option<&str>, parts: &[Part], join: &str) -> Digest {
    Digest {
        algorithm,
        key: key.map(str::to_owned),
        key_encoding: Encoding::Plain,
        parts: parts.to_vec(),
        join: join.to_owned(),
        encoding: Encoding::Hex,
    }
}

fn composed(digest: Option<Digest>, texts: &[(ComposedText, Placement)]) -> CredentialKind {
    let composition = Composition { digest, texts: texts.to_vec() };
    let secrets = vec![secret("key", SecretFormat::Text, None)];
    kind("composed", secrets, Authentication::Composed(composition))
}

/// What a request with these headers and this body is sent with.
struct Request<'a> {
    headers: &'a [(&'static str, &'a str)],
    path: &'a str,
    body: &'a str,
    settings: &'a [(&'a str, &'a str)],
    secrets: &'a [(&'a str, &'a [u8])],
    now: u64,
}

const PLAIN: Request<'static> =
    Request { headers: &[], path: "/", body: "", settings: &[], secrets: &[], now: 1_700_000_000_000 };

impl Request<'_> {
    async fn texts(&self, kind: &CredentialKind) -> Result<Vec<(Place, String)>, AuthorizeError> {
        check_manifest(std::slice::from_ref(kind)).unwrap();
        let credential = accept(std::slice::from_ref(kind), self.secrets);
        let settings = settings(self.settings);
        let own: Vec<(HeaderName, HeaderValue)> = self
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let common = HeaderMap::new();
        let request =
            ComposedRequest { path: self.path, body: self.body.as_bytes(), common: &common, own: &own };
        let exchange = AuthorizeRequest {
            tenant: tenant(),
            credential: &credential,
            kind,
            settings: &settings,
            origin: "https://push",
            token_trust: &Untrusted,
            request: Some(request),
        };
        match authorizer(Endpoint::silent()).authorize(exchange, &at(self.now), soon()).await? {
            Authorization::Placed { texts, token: None } => Ok(texts
                .into_iter()
                .map(|(place, value)| {
                    assert!(value.is_sensitive());
                    (place, String::from_utf8(value.as_bytes().to_vec()).unwrap())
                })
                .collect()),
            Authorization::Header { name, value, .. } => {
                Ok(vec![(Place::Header(name.to_string()), value.to_str().unwrap().to_owned())])
            }
            _ => panic!("no texts"),
        }
    }

    async fn only(&self, kind: &CredentialKind) -> (Place, String) {
        let mut texts = self.texts(kind).await.unwrap();
        assert_eq!(texts.len(), 1);
        texts.remove(0)
    }
}

/// The example of the Standard Webhooks reference libraries.
#[tokio::test]
async fn standard_webhooks() {
    let mut digest = digest(
        DigestAlgorithm::HmacSha256,
        Some("key"),
        &[Part::Header("webhook-id".into()), Part::Seconds, Part::Body],
        ".",
    );
    (digest.key_encoding, digest.encoding) = (Encoding::Base64, Encoding::Base64);
    let kind = composed(
        Some(digest),
        &[
            (text(&[Part::Seconds], Encoding::Plain), header("webhook-timestamp", "")),
            (text(&[Part::Digest], Encoding::Plain), header("webhook-signature", "v1,")),
        ],
    );
    let request = Request {
        headers: &[("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")],
        body: r#"{"test": 2432232314}"#,
        secrets: &[("key", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        now: 1_614_265_330_000,
        ..PLAIN
    };
    let texts = request.texts(&kind).await.unwrap();
    assert_eq!(texts[0], (Place::Header("webhook-timestamp".into()), "1614265330".into()));
    assert_eq!(texts[1].1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let without = Request { headers: &[], ..request };
    let error = without.texts(&kind).await.err();
    assert!(matches!(error, Some(AuthorizeError::Manifest(_))), "{error:?}");
}

/// HTTP Basic of a setting and a secret, and of two secrets (RFC 7617 section 2 has this example).
#[tokio::test]
async fn twilio_and_basic_of_two_secrets() {
    let basic = |parts: &[Part]| {
        composed(None, &[(text(parts, Encoding::Base64), header("authorization", "Basic "))])
    };
    let kind = basic(&[setting("sid"), literal(":"), secret_part("key")]);
    let settings = &[("sid", "Aladdin")];
    let request = Request { settings, secrets: &[("key", b"open sesame")], ..PLAIN };
    assert_eq!(request.only(&kind).await.1, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");

    let mut kind = basic(&[secret_part("user"), literal(":"), secret_part("key")]);
    kind.companions = vec![secret("user", SecretFormat::Text, None)];
    let secrets: &[(&str, &[u8])] = &[("key", b"open sesame"), ("user", b"Aladdin")];
    assert_eq!(Request { secrets, ..PLAIN }.only(&kind).await.1, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let error = refuse(std::slice::from_ref(&kind), &[("key", b"open sesame")]);
    assert_eq!((&*error.code, &*error.field), ("missing_user", "user"));
    let [one, other] = [b"Aladdin".as_slice(), b"Jasmin"]
        .map(|user| *accept(std::slice::from_ref(&kind), &[("key", b"x"), ("user", user)]).fingerprint());
    assert_ne!(one, other, "another companion is another credential");
}

/// Telegram has its secret in the path, Pushover in the form, Slack in the path of a webhook, Xiaomi in a header.
#[tokio::test]
async fn secrets_in_their_places() {
    let secrets: &[(&str, &[u8])] = &[("key", b"123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11")];
    let request = Request { secrets, ..PLAIN };
    for (place, prefix, expected) in [
        (Place::Path("{token}".into()), "bot", "bot123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"),
        (Place::FormField("token".into()), "", "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"),
        (Place::JsonField("auth_token".into()), "", "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"),
        (Place::Query("key".into()), "", "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"),
        (Place::Header("authorization".into()), "key=", "key=123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"),
    ] {
        let placement = Placement { place: place.clone(), prefix: prefix.into() };
        let secrets = vec![secret("key", SecretFormat::Text, None)];
        let kind = kind("secret", secrets, Authentication::Secret(("key".into(), placement)));
        assert_eq!(request.only(&kind).await, (place, expected.to_owned()));
    }
}

/// The example of Meizu's document: MD5 over the sorted fields and the secret, as one more field.
#[tokio::test]
async fn meizu_signs_the_form() {
    let parts = [Part::FormFields(String::new()), secret_part("key")];
    let digest = digest(DigestAlgorithm::Md5, None, &parts, "");
    let placement = Placement { place: Place::FormField("sign".into()), prefix: String::new() };
    let kind = composed(Some(digest), &[(text(&[Part::Digest], Encoding::Plain), placement)]);
    let body = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("pushIds", "RA50c6348036344485d01776773577c64740465480a6b")
        .append_pair("appId", "10000")
        .append_pair(
            "messageJson",
            r#"{"title":"title","content":"content","pushTimeInfo":{"offLine":1,"validTime":24}}"#,
        )
        .finish();
    let request = Request { body: &body, secrets: &[("key", b"<APP_SECRET>")], ..PLAIN };
    let expected = "ac076ff25d9900015a681cb5172aa53b".to_owned();
    assert_eq!(request.only(&kind).await, (Place::FormField("sign".into()), expected));
}

/// A shared access signature of Azure, computed with Python's `hmac` and `urllib.parse.quote`.
#[tokio::test]
async fn azure_shared_access_signatures() {
    let expiry = Part::SecondsAfter(3_600_000);
    let resource = Part::EncodedSetting("resource".into());
    let mut digest =
        digest(DigestAlgorithm::HmacSha256, Some("key"), &[resource.clone(), expiry.clone()], "\n");
    digest.encoding = Encoding::Base64Percent;
    let parts = [
        literal("SharedAccessSignature sr="),
        resource,
        literal("&sig="),
        Part::Digest,
        literal("&se="),
        expiry,
        literal("&skn="),
        setting("policy"),
    ];
    let kind = composed(Some(digest), &[(text(&parts, Encoding::Plain), header("authorization", ""))]);
    let request = Request {
        settings: &[("resource", "https://example.servicebus.windows.net/hub"), ("policy", "send")],
        secrets: &[("key", b"c2VjcmV0")],
        ..PLAIN
    };
    assert_eq!(request.only(&kind).await.1, AZURE);
}

const AZURE: &str = "SharedAccessSignature sr=https%3A%2F%2Fexample.servicebus.windows.net%2Fhub&sig=gPpFVc%2BPA8tc1XxY%2BJZlUMOa470DKFzBNhUs3pReXQ4%3D&se=1700003600&skn=send";

fn field(name: &str, parts: &[Part], number: bool) -> RequestField {
    RequestField { name: name.to_owned(), value: text(parts, Encoding::Plain), number }
}

/// A signed request for a token that lives for a day. `success`: the path that is 0 then.
fn daily(
    format: BodyFormat,
    fields: Vec<RequestField>,
    digest: Digest,
    token: &str,
    success: &str,
) -> TokenRequest {
    TokenRequest {
        format,
        fields,
        digest: Some(digest),
        token: token.into(),
        expires_in: None,
        lifetime: minutes(24 * 60),
        success: Some((success.into(), "0".into())),
    }
}

fn exchanged(request: TokenRequest, placement: Placement, url: Vec<Source>) -> CredentialKind {
    let exchange = TokenExchange {
        token_url: url,
        scope: None,
        grant: Grant::Custom(request),
        refresh_before: minutes(5),
        minimum_age: 0,
    };
    let secrets = vec![secret("key", SecretFormat::Text, None)];
    kind("exchanged", secrets, Authentication::ExchangedToken((exchange, placement)))
}

/// Fetches a token. Returns the request's URL and body, and what authorises the push.
async fn fetched(
    kind: &CredentialKind,
    key: &[u8],
    values: &[(&str, &str)],
    now: u64,
    answer: serde_json::Value,
) -> (String, String, Result<Authorization, AuthorizeError>) {
    check_manifest(std::slice::from_ref(kind)).unwrap();
    let credential = accept(std::slice::from_ref(kind), &[("key", key)]);
    let endpoint = Endpoint::new([(200, answer.to_string())]);
    let work = WorkLimits { cpu_burst: Duration::from_secs(100_000), ..WorkLimits::default() };
    let accounts = Accounts::new(AccountSettings { work, ..AccountSettings::default() }).unwrap();
    let authorizer = Authorizer::new(Arc::new(Client(endpoint.clone())), accounts);
    let settings = settings(values);
    let exchange = AuthorizeRequest {
        tenant: tenant(),
        credential: &credential,
        kind,
        settings: &settings,
        origin: "https://push",
        token_trust: &Untrusted,
        request: None,
    };
    let authorization = authorizer.authorize(exchange, &at(now), soon()).await;
    let (url, body) = endpoint.requests()[0].clone();
    (url, body, authorization)
}

/// OPPO: SHA-256 over key, time and secret; the token goes into the form of each push. The values are recomputed in
/// the vendor's terms.
#[tokio::test]
async fn oppo_exchanges_a_digest_for_a_token() {
    let parts = [setting("app_key"), Part::Milliseconds, secret_part("key")];
    let fields = vec![
        field("app_key", &parts[..1], false),
        field("timestamp", &parts[1..2], false),
        field("sign", &[Part::Digest], false),
    ];
    let digest = digest(DigestAlgorithm::Sha256, None, &parts, "");
    let request = daily(BodyFormat::Form, fields, digest, "data.auth_token", "code");
    let url = vec![Source::Literal("\"https://api.push.oppomobile.com/server/v1/auth\"".into())];
    let placement = Placement { place: Place::FormField("auth_token".into()), prefix: String::new() };
    let kind = exchanged(request, placement, url);
    let ask =
        |answer| fetched(&kind, b"mastersecret456", &[("app_key", "appkey123")], 1_700_000_000_000, answer);
    let (_, body, token) = ask(json!({"code": 0, "data": {"auth_token": "58ad47319e8d725350a5afd5"}})).await;
    let sign = "32a6d04f11cef04d950d20438fc89d5f140537871d04c40a9d0b423f7cd36100";
    assert_eq!(body, format!("app_key=appkey123&timestamp=1700000000000&sign={sign}"));
    let Ok(Authorization::Placed { texts, token: Some(_) }) = token else { panic!("no token") };
    assert_eq!(texts[0].0, Place::FormField("auth_token".into()));
    assert_eq!(texts[0].1.as_bytes(), b"58ad47319e8d725350a5afd5");
    let (_, _, refused) = ask(json!({"code": 14, "message": "Invalid AppKey appkey123"})).await;
    let expected = AuthorizeError::Refused { code: "14".into(), description: None };
    assert_eq!(refused.err(), Some(expected));
}

/// vivo's example: MD5 over id, key, time and secret, in JSON with numbers; the token is a header of its own.
#[tokio::test]
async fn vivo_exchanges_json() {
    let parts = [setting("app_id"), setting("app_key"), Part::Milliseconds, secret_part("key")];
    let fields = vec![
        field("appId", &parts[..1], true),
        field("appKey", &parts[1..2], false),
        field("timestamp", &parts[2..3], true),
        field("sign", &[Part::Digest], false),
    ];
    let digest = digest(DigestAlgorithm::Md5, None, &parts, "");
    let request = daily(BodyFormat::Json, fields, digest, "authToken", "result");
    let url = vec![Source::Literal("\"https://api-push.vivo.com.cn/message/auth\"".into())];
    let kind = exchanged(request, header("authtoken", ""), url);
    let settings = [("app_id", "10004"), ("app_key", "25509283-3767-4b9e-83fe-b6e55ac6243e")];
    let (_, body, token) = fetched(
        &kind,
        b"25509283-3767-4b9e-83fe-b6e55ac6b123",
        &settings,
        1_501_484_120_000,
        json!({"result": 0, "authToken": "24ad47319e8d"}),
    )
    .await;
    let expected = json!({
        "appId": 10004,
        "appKey": "25509283-3767-4b9e-83fe-b6e55ac6243e",
        "timestamp": 1_501_484_120_000_u64,
        "sign": "3531bb60b6aa6c9b85311a4c46b103e1",
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected);
    let Ok(Authorization::Header { name, value, token: Some(_) }) = token else { panic!("no header") };
    assert_eq!((name.as_str(), value.as_bytes()), ("authtoken", b"24ad47319e8d".as_slice()));
}

/// Microsoft's token endpoint has the tenant's id in its path; what is in a setting stays one piece of it.
#[tokio::test]
async fn token_urls_have_settings_in_their_path() {
    let url = vec![
        Source::Literal("\"https://login.microsoftonline.com/\"".into()),
        Source::Setting("directory".into()),
        Source::Literal("\"/oauth2/v2.0/token\"".into()),
    ];
    let request = TokenRequest {
        format: BodyFormat::Form,
        fields: vec![field("key", &[secret_part("key")], false)],
        digest: None,
        token: "token".into(),
        expires_in: Some("lives".into()),
        lifetime: minutes(60),
        success: None,
    };
    let kind = exchanged(request, header("authorization", "Bearer "), url.clone());
    let (asked, _, _) =
        fetched(&kind, b"x", &[("directory", "a/../b?")], 0, json!({"token": "t", "lives": 60})).await;
    assert_eq!(asked, "https://login.microsoftonline.com/a%2F..%2Fb%3F/oauth2/v2.0/token");
    let mut open = kind.clone();
    for pieces in [
        vec![url[1].clone(), url[2].clone()],
        vec![Source::Literal("\"https://login\"".into()), url[1].clone()],
    ] {
        let Authentication::ExchangedToken((exchange, _)) = &mut open.authentication else {
            panic!("exchanged")
        };
        exchange.token_url = pieces;
        assert!(check_manifest(std::slice::from_ref(&open)).is_err(), "a setting must not choose the host");
    }
}
