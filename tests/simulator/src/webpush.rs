//! A Web Push service: `POST /wpush/v2/{subscription}` (RFC 8030), for subscriptions made here, and it plays the browser
//! too: it decrypts what arrives (RFC 8188, RFC 8291) and records the text.
//!
//! It answers as Mozilla's autopush does, and is as strict as the strictest of the services in use: a VAPID token is
//! needed, with a `sub` (RFC 8292), and a topic must be base64url. The id of a subscription asks for an answer by how it
//! starts:
//!
//! | starts with | answer |
//! |---|---|
//! | `gone`, `missing` | 410, 404 |
//! | `busy` | 503 with `Retry-After: 120` |
//! | `flood` | 429 |
//! | `broken` | 500 |
//! | `mismatch` | 403 in Google's words for another application's key |
//!
//! The subscription of RFC 8291 section 5 is there from the start, as `https://push.example/p/…`.
//!
//! No service sees whether a body can be decrypted; here one that cannot is refused with 400, so that it is found.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use p256::elliptic_curve::sec1::ToSec1Point;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Simulator;
use crate::answer::Answer;
use crate::clock::unix_seconds;
use crate::state::Verdict;

/// Subscriptions that are kept.
const MOST_SUBSCRIPTIONS: usize = 100_000;
/// Bytes of a body that every service takes (RFC 8030 section 7.2).
const LARGEST: usize = 4096;
const LONGEST_LIFE: i64 = 24 * 3600;
const SKEW: i64 = 60;
const PATH: &str = "/wpush/v2/";
/// RFC 8291 section 5: path, private key, authentication secret.
const EXAMPLE: [&str; 3] = [
    "/p/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV",
    "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94",
    "BTBZMqHH6r4Tts7J_aSIgg",
];

/// What a browser hands to its application: `PushSubscription.toJSON()`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Where messages are sent.
    pub endpoint: String,
    /// The browser's keys.
    pub keys: SubscriptionKeys,
}

/// The keys of a [`Subscription`], in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionKeys {
    /// The public key.
    pub p256dh: String,
    /// The authentication secret.
    pub auth: String,
}

/// What the push service and the browser know.
pub(crate) struct WebPushState {
    /// By the path of the endpoint.
    subscriptions: Mutex<HashMap<String, Subscribed>>,
}

struct Subscribed {
    key: p256::SecretKey,
    auth: [u8; 16],
    /// Whose messages it takes; all, if there is none.
    application_key: Option<String>,
    /// What tokens must name.
    origin: String,
}

impl Simulator {
    /// Makes a subscription. `id` asks for answers; `application_key` is the `applicationServerKey`; `origin` is where
    /// the endpoint is said to be: the simulator's own, or one that the client under test redirects.
    ///
    /// # Errors
    /// There are too many, or the random source failed.
    pub fn subscribe(
        &self,
        id: &str,
        application_key: Option<&str>,
        origin: &str,
    ) -> Result<Subscription, crate::StartError> {
        self.shared.webpush.subscribe(id, application_key, origin)
    }
}

impl WebPushState {
    pub fn new() -> Self {
        Self { subscriptions: Mutex::new(example().into_iter().collect()) }
    }

    pub fn subscribe(
        &self,
        id: &str,
        application_key: Option<&str>,
        origin: &str,
    ) -> Result<Subscription, crate::StartError> {
        let failed = |why: &str| crate::StartError::Make(format!("a subscription: {why}"));
        let mut random = [0; 48];
        getrandom::fill(&mut random).map_err(|_| failed("no randomness"))?;
        let (scalar, rest) = random.split_at(32);
        let auth: [u8; 16] = rest.try_into().map_err(|_| failed("no randomness"))?;
        let key = p256::SecretKey::from_slice(scalar).map_err(|_| failed("no key"))?;
        let p256dh = URL_SAFE_NO_PAD.encode(key.public_key().to_sec1_point(false).as_bytes());
        let keys = SubscriptionKeys { p256dh, auth: URL_SAFE_NO_PAD.encode(auth) };
        let mut subscriptions = self.lock();
        if subscriptions.len() >= MOST_SUBSCRIPTIONS {
            return Err(failed("there are too many"));
        }
        let application_key = application_key.map(str::to_owned);
        let subscribed = Subscribed { key, auth, application_key, origin: origin.to_owned() };
        subscriptions.insert(format!("{PATH}{id}"), subscribed);
        Ok(Subscription { endpoint: format!("{origin}{PATH}{id}"), keys })
    }

    /// Checks a message, and answers it. The second value is its text, decrypted.
    pub fn send(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> (Verdict, Option<Vec<u8>>) {
        let id = path.rsplit('/').next().unwrap_or_default();
        let subscriptions = self.lock();
        let Some(subscribed) = subscriptions.get(path) else {
            let answer = problem(404, 102, "Not Found", "Request did not validate: invalid token");
            return (Verdict::refused(answer), None);
        };
        let checked = check(subscribed, headers, body);
        let (checked, text) = match checked {
            Ok(text) => (Ok(magic(id).unwrap_or_else(|| created(id, headers))), text),
            Err(answer) => (Err(*answer), None),
        };
        let topic = headers.get("topic").and_then(|topic| topic.to_str().ok()).map(str::to_owned);
        (Verdict::of(Some(id.to_owned()), topic, checked), text)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Subscribed>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is it a path of this service?
pub(crate) fn is_path(path: &str) -> bool {
    path == EXAMPLE[0] || path.strip_prefix(PATH).is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

fn example() -> Option<(String, Subscribed)> {
    let [path, key, auth] = EXAMPLE;
    let key = p256::SecretKey::from_slice(&URL_SAFE_NO_PAD.decode(key).ok()?).ok()?;
    let auth = URL_SAFE_NO_PAD.decode(auth).ok()?.try_into().ok()?;
    let origin = "https://push.example".to_owned();
    Some((path.to_owned(), Subscribed { key, auth, application_key: None, origin }))
}

/// Lines for people: what subscriptions ask for.
pub(crate) fn help() -> &'static str {
    "Subscriptions are made by POST /subscriptions {\"id\":…,\"application_server_key\":…,\"origin\":…} here. Ids that \
     start with these ask for:\n  gone (410), missing (404), busy (503), flood (429), broken (500), mismatch (403)\n"
}

type Check<T = ()> = Result<T, Box<Answer>>;

fn check(subscribed: &Subscribed, headers: &HeaderMap, body: &[u8]) -> Check<Option<Vec<u8>>> {
    check_token(subscribed, text(headers, "authorization").unwrap_or_default())?;
    match text(headers, "ttl").map(str::parse::<i64>) {
        Some(Ok(ttl)) if ttl >= 0 => {}
        Some(Ok(_)) => return Err(bad(114, "TTL must not be negative")),
        _ => return Err(bad(111, "TTL is missing, or no number")),
    }
    if text(headers, "urgency")
        .is_some_and(|urgency| !["very-low", "low", "normal", "high"].contains(&urgency))
    {
        return Err(bad(113, "Urgency has an unknown value"));
    }
    if let Some(topic) = text(headers, "topic") {
        let letters = topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !letters || !(1..=32).contains(&topic.len()) || topic.len() % 4 == 1 {
            return Err(bad(113, "Topic must be up to 32 letters that can be read as base64url"));
        }
    }
    if body.len() > LARGEST {
        return Err(Box::new(problem(413, 104, "Payload Too Large", "This message is too large")));
    }
    if body.is_empty() {
        return Ok(None);
    }
    if text(headers, "content-encoding") != Some("aes128gcm") {
        return Err(bad(110, "Content-Encoding must be aes128gcm"));
    }
    match decrypt(subscribed, body) {
        Some(text) => Ok(Some(text)),
        None => Err(bad(110, "the browser could not decrypt it")),
    }
}

/// RFC 8292.
fn check_token(subscribed: &Subscribed, authorization: &str) -> Check {
    let refused = |why: &str| Box::new(problem(401, 109, "Unauthorized", why));
    let parameters =
        authorization.strip_prefix("vapid ").ok_or_else(|| refused("the scheme is not vapid"))?;
    let mut fields = parameters.split(',').filter_map(|field| field.trim().split_once('='));
    let fields: HashMap<&str, &str> = fields.by_ref().collect();
    let (Some(token), Some(key)) = (fields.get("t"), fields.get("k")) else {
        return Err(refused("t or k is missing"));
    };
    if subscribed.application_key.as_deref().is_some_and(|known| known != *key) {
        return Err(refused("VAPID public key mismatch"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| refused("t is no JWT"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| refused("t is no JWT"))?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| refused("it is no base64url"));
    let json = |part: &str| -> Check<Value> {
        serde_json::from_slice(&bytes(part)?).map_err(|_| refused("t is no JWT"))
    };
    if json(header)?["alg"] != "ES256" {
        return Err(refused("alg is not ES256"));
    }
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes(key)?);
    public.verify(signed.as_bytes(), &bytes(signature)?).map_err(|_| refused("the signature is wrong"))?;
    let claims = json(claims)?;
    if claims["aud"] != subscribed.origin.as_str() {
        return Err(refused("aud is not the origin of the endpoint"));
    }
    let now = unix_seconds();
    if !claims["exp"].as_i64().is_some_and(|end| end > now - SKEW && end <= now + LONGEST_LIFE) {
        return Err(refused("exp is in the past, or more than 24 hours ahead"));
    }
    let subject = claims["sub"].as_str().unwrap_or_default();
    match subject.starts_with("mailto:") || subject.starts_with("https://") {
        true => Ok(()),
        false => Err(refused("sub must be a mailto: or https: address")),
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// What the browser reads: one record of RFC 8188, with the keys of RFC 8291.
fn decrypt(subscribed: &Subscribed, body: &[u8]) -> Option<Vec<u8>> {
    let (salt, rest) = body.split_at_checked(16)?;
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first()?;
    let (sender, record) = rest.split_at_checked(usize::from(*length))?;
    if record.len() > usize::try_from(u32::from_be_bytes(*size)).ok()? || sender.len() != 65 {
        return None;
    }
    let public = p256::PublicKey::from_sec1_bytes(sender).ok()?;
    let shared = p256::ecdh::diffie_hellman(subscribed.key.to_nonzero_scalar(), public.as_affine());
    let own = subscribed.key.public_key().to_sec1_point(false);
    let mut input = [0; 32];
    let info: [&[u8]; 3] = [b"WebPush: info\0", own.as_bytes(), sender];
    derive(&subscribed.auth, shared.raw_secret_bytes(), &info, &mut input)?;
    let (mut key, mut nonce) = ([0; 16], [0; 12]);
    derive(salt, &input, &[b"Content-Encoding: aes128gcm\0"], &mut key)?;
    derive(salt, &input, &[b"Content-Encoding: nonce\0"], &mut nonce)?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
    let mut record = record.to_vec();
    let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record).ok()?;
    // Padding: zeros behind the delimiter of the last record.
    let end = plain.iter().rposition(|byte| *byte != 0)?;
    match plain.split_at_checked(end)? {
        (text, [2, ..]) => Some(text.to_vec()),
        _ => None,
    }
}

fn derive(salt: &[u8], input: &[u8], info: &[&[u8]], out: &mut [u8]) -> Option<()> {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(input);
    extracted.expand(info, Length(out.len())).ok()?.fill(out).ok()
}

fn created(id: &str, headers: &HeaderMap) -> Answer {
    let message = uuid::Uuid::new_v4().simple();
    let answer =
        Answer::empty(StatusCode::CREATED).header("location", &format!("/m/{id}/{message}")).delivered(1);
    answer.header("ttl", text(headers, "ttl").unwrap_or("0"))
}

fn magic(id: &str) -> Option<Answer> {
    let retry = problem(503, 201, "Service Unavailable", "Use exponential back-off for retries");
    let mismatch = "the VAPID credentials in the authorization header do not correspond to the credentials used to \
                    create the subscriptions.\n";
    let answers: [(&str, Answer); 6] = [
        ("gone", problem(410, 106, "Gone", "Invalid subscription")),
        ("missing", problem(404, 102, "Not Found", "Request did not validate: invalid token")),
        ("busy", retry.header("retry-after", "120")),
        ("flood", problem(429, 0, "Too Many Requests", "Too many messages to this subscription")),
        ("broken", problem(500, 999, "Internal Server Error", "Something went wrong")),
        ("mismatch", Answer::text(StatusCode::FORBIDDEN, mismatch)),
    ];
    answers.into_iter().find(|(begin, _)| id.starts_with(begin)).map(|(_, answer)| answer)
}

fn bad(errno: u32, message: &str) -> Box<Answer> {
    Box::new(problem(400, errno, "Bad Request", message))
}

fn problem(code: u16, errno: u32, error: &str, message: &str) -> Answer {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
    let link = "http://autopush.readthedocs.io/en/latest/http.html#error-codes";
    let body = json!({ "code": code, "errno": errno, "error": error, "message": message, "more_info": link });
    Answer::json(status, &body)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
