//! Huawei Push Kit: the token endpoint, and the APIs v1 and v3.
//!
//! - `POST /oauth2/v3/token` gives access tokens for any app id of digits; client secrets that start with `bad` are
//!   refused;
//! - `POST /v1/{app}/messages:send` takes such a token of the same app;
//! - `POST /v3/{project}/messages:send` takes a token that the service account `hms-service-account.json` signed.
//!
//! A device token asks for an answer by how it starts:
//!
//! | starts with | answer |
//! |---|---|
//! | `ILLEGAL` | this token fails, beside others in a `80100000`, or `80300007` where all do |
//! | `CAUSE-` and a cause of the API v3 (`CAUSE-noPushTypeRight-1`) | the same, with that cause |
//! | `CODE-` and eight digits | that code for the whole request |
//! | `HTTP-500`, `HTTP-502`, `HTTP-503` | that status, without a body that can be read |
//!
//! Where the documents are silent: a code of v1 comes with status 200, one of v3 about the caller with 401 and any
//! other with 400; fields that the reference does not list are `80100001`.

mod message;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::clock::unix_seconds;
use crate::credentials::{Account, HMS_PROJECT_ID, HMS_SUB_ACCOUNT};
use crate::state::Verdict;
use message::{Failure, Recipients};

/// What the JWT of the API v3 must name.
const AUDIENCE: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";
/// Huawei refuses a JWT of a longer life.
const LONGEST_LIFE: i64 = 24 * 3600;
const SKEW: i64 = 60;
/// Access tokens that are remembered; the one that expires first goes.
const MAX_TOKENS: usize = 10_000;

/// What Huawei knows.
pub(crate) struct HmsState {
    lifetime: Duration,
    /// The app of each access token, and its end.
    tokens: Mutex<HashMap<String, (String, Instant)>>,
}

/// A path of the push service.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Token,
    /// The app's id.
    V1(&'a str),
    /// The project's id.
    V3(&'a str),
}

/// Returns what a path stands for; None: it is none of Huawei's.
pub(crate) fn path(path: &str) -> Option<Path<'_>> {
    if path == "/oauth2/v3/token" {
        return Some(Path::Token);
    }
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    let id = rest.strip_suffix("/messages:send").filter(|id| !id.is_empty() && !id.contains('/'))?;
    match version {
        "v1" => Some(Path::V1(id)),
        "v3" => Some(Path::V3(id)),
        _ => None,
    }
}

/// Lines for people: what tokens ask for.
pub(crate) fn help() -> &'static str {
    "Device tokens that start with these ask for:\n  ILLEGAL (this token fails), CAUSE-noRight (the same, with that \
     cause of v3), CODE-80300011 (for the whole request), HTTP-500, HTTP-502, HTTP-503\nClient secrets that start with \
     `bad` are refused.\n"
}

impl HmsState {
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, tokens: Mutex::default() }
    }

    /// Makes all access tokens invalid.
    pub fn revoke_all(&self) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Answers a request for an access token (RFC 6749 section 4.4). The verdict's token is the app's id.
    pub fn token(&self, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let refused = |error: u32, description: &str| {
            let body = json!({ "error": error, "sub_error": 20_001, "error_description": description });
            Verdict::refused(Answer::json(StatusCode::BAD_REQUEST, &body))
        };
        if !text(headers, "content-type").starts_with("application/x-www-form-urlencoded") {
            return refused(1101, "invalid request");
        }
        let form: HashMap<_, _> = url::form_urlencoded::parse(body).collect();
        let field = |name: &str| form.get(name).map_or("", |value| &**value);
        let (app, secret) = (field("client_id"), field("client_secret"));
        if field("grant_type") != "client_credentials" {
            return refused(1104, "unsupported grant type");
        }
        let known = !app.is_empty() && app.bytes().all(|byte| byte.is_ascii_digit());
        if !known || secret.is_empty() || secret.starts_with("bad") {
            return refused(1203, "invalid client");
        }
        let lifetime = self.lifetime.as_secs();
        let body = json!({ "access_token": self.issue(app), "expires_in": lifetime, "token_type": "Bearer" });
        // Huawei escapes the slashes of its tokens: a client that does not read JSON sends another token.
        let escaped = body.to_string().replace('/', "\\/");
        let answer = Answer { body: escaped.into(), ..Answer::empty(StatusCode::OK) };
        let answer = answer.header("content-type", "application/json");
        Verdict::of(Some(app.to_owned()), None, Ok(answer))
    }

    fn issue(&self, app: &str) -> String {
        let token = format!("CgB6e3x9/{}", uuid::Uuid::new_v4().simple());
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            let first = tokens.iter().min_by_key(|(_, (_, end))| *end).map(|(token, _)| token.clone());
            first.and_then(|token| tokens.remove(&token));
        }
        tokens.insert(token.clone(), (app.to_owned(), Instant::now() + self.lifetime));
        token
    }

    fn check_access_token(&self, app: &str, token: &str) -> Result<(), Failure> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get(token) {
            Some((owner, end)) if owner == app && *end > Instant::now() => Ok(()),
            Some((owner, _)) if owner == app => Err(Failure::new("80200003", "oauth token expired")),
            _ => Err(Failure::new("80200001", "oauth token is error")),
        }
    }

    /// Checks a message and answers it.
    pub fn send(&self, account: &Account, path: Path<'_>, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let authorization = text(headers, "authorization");
        let bearer = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let checked = match path {
            Path::V1(app) => self.check_access_token(app, bearer).and_then(|()| message::check_v1(body)),
            Path::V3(project) => check_jwt(account, project, bearer)
                .and_then(|()| message::check_v3(text(headers, "push-type"), body)),
            Path::Token => return self.token(headers, body),
        };
        let is_v3 = matches!(path, Path::V3(_));
        match checked {
            Err(failure) => Verdict::refused(failed(is_v3, &failure)),
            Ok(sound) => {
                let token = match &sound.recipients {
                    Recipients::Tokens(tokens) => tokens.first().cloned(),
                    Recipients::Topic(_) => None,
                };
                let topic = match &sound.recipients {
                    Recipients::Topic(topic) => Some(topic.clone()),
                    Recipients::Tokens(_) => None,
                };
                let answer = accepted(is_v3, &sound.recipients);
                let answer = if sound.is_dry { answer.delivered(0) } else { answer };
                Verdict::of(token, topic, Ok(answer))
            }
        }
    }
}

/// The answer to a message that passed every check.
fn accepted(is_v3: bool, recipients: &Recipients) -> Answer {
    let tokens: &[String] = match recipients {
        Recipients::Tokens(tokens) => tokens,
        Recipients::Topic(_) => &[],
    };
    if let Some(answer) = tokens.iter().find_map(|token| whole(is_v3, token)) {
        return answer;
    }
    let mut causes: Vec<(&str, Vec<&str>)> = Vec::new();
    for token in tokens {
        let Some(cause) = cause(token) else { continue };
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, list)) => list.push(token),
            None => causes.push((cause, vec![token.as_str()])),
        }
    }
    let failures: usize = causes.iter().map(|(_, list)| list.len()).sum();
    let count = tokens.len().max(1);
    if failures == 0 {
        let delivered = u32::try_from(count).unwrap_or(u32::MAX);
        return answered(StatusCode::OK, "80000000", "Success").delivered(delivered);
    }
    let successes = count - failures;
    let message = match is_v3 {
        true => {
            let causes: serde_json::Map<String, Value> =
                causes.iter().map(|(cause, list)| ((*cause).to_owned(), json!(list))).collect();
            json!({ "success": successes, "failure": failures, "illegalTokens": causes })
        }
        false => {
            let list: Vec<&str> = causes.iter().flat_map(|(_, list)| list.iter().copied()).collect();
            json!({ "success": successes, "failure": failures, "illegal_tokens": list })
        }
    };
    let code = if successes == 0 { "80300007" } else { "80100000" };
    answered(StatusCode::OK, code, &message.to_string())
        .delivered(u32::try_from(successes).unwrap_or(u32::MAX))
}

/// Why a token fails.
fn cause(token: &str) -> Option<&str> {
    if token.starts_with("ILLEGAL") {
        return Some("tokenFormatError");
    }
    let rest = token.strip_prefix("CAUSE-")?;
    Some(rest.split('-').next().unwrap_or(rest))
}

/// The answer that a token asks for the whole request.
fn whole(is_v3: bool, token: &str) -> Option<Answer> {
    if let Some(code) = token.strip_prefix("CODE-").and_then(|rest| rest.get(..8)) {
        return Some(failed(is_v3, &Failure::new(code, "asked for by the token")));
    }
    match token.strip_prefix("HTTP-")?.get(..3)? {
        "500" => Some(Answer::html(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
        "502" => Some(Answer::html(StatusCode::BAD_GATEWAY, "Bad Gateway")),
        "503" => Some(Answer::html(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")),
        _ => None,
    }
}

fn failed(is_v3: bool, failure: &Failure) -> Answer {
    let status = match failure.code.get(..4) {
        _ if !is_v3 => StatusCode::OK,
        Some("8020") => StatusCode::UNAUTHORIZED,
        Some("8100") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    answered(status, &failure.code, &failure.message)
}

fn answered(status: StatusCode, code: &str, message: &str) -> Answer {
    let id = format!("{}000{}", unix_seconds(), uuid::Uuid::new_v4().as_u128() % 1_000_000);
    Answer::json(status, &json!({ "code": code, "msg": message, "requestId": id }))
}

/// A JWT of the service account (push-jwt-token).
fn check_jwt(account: &Account, project: &str, token: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Failure::new("80200001", why);
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| wrong("no JWT"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| wrong("no JWT"))?;
    let part =
        |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let (Some(header), Some(claims)) = (part(header), part(claims)) else { return Err(wrong("no JWT")) };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| wrong("the signature is no base64url"))?;
    let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &account.public_key);
    if header["alg"] != "PS256" || header["kid"] != account.private_key_id.as_str() {
        return Err(wrong("alg or kid is wrong"));
    }
    key.verify(signed.as_bytes(), &signature).map_err(|_| wrong("the signature is wrong"))?;
    if claims["iss"] != HMS_SUB_ACCOUNT || claims["aud"] != AUDIENCE {
        return Err(wrong("iss or aud is wrong"));
    }
    let (Some(issued), Some(end)) = (claims["iat"].as_i64(), claims["exp"].as_i64()) else {
        return Err(wrong("iat or exp is missing"));
    };
    let now = unix_seconds();
    if end - issued > LONGEST_LIFE {
        return Err(Failure::new("80300036", "the JWT lives for too long"));
    }
    if issued > now + SKEW || end < now - SKEW {
        return Err(Failure::new("80200005", "the JWT is expired"));
    }
    match project == HMS_PROJECT_ID {
        true => Ok(()),
        false => Err(Failure::new("80300002", "the project is another one's")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
