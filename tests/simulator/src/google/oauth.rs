//! Google's OAuth 2.0 token endpoint for service accounts: `POST /token` (RFC 7523).
//!
//! Checks the form, the grant type, the assertion's signature (RS256), issuer, audience, times and scope, and
//! answers `invalid_request`, `unsupported_grant_type`, `invalid_grant` or `invalid_scope` as Google does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::json;

use super::GoogleState;
use crate::answer::Answer;
use crate::clock::unix_seconds;
use crate::credentials::Account;
use crate::state::Verdict;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"];
/// Google's own endpoints: its libraries name the first in every assertion, whatever the account's `token_uri` is.
const AUDIENCES: [&str; 3] = [
    "https://oauth2.googleapis.com/token",
    "https://www.googleapis.com/oauth2/v4/token",
    "https://accounts.google.com/o/oauth2/token",
];
/// Google: an assertion lives for an hour at most.
const MAX_LIFETIME: i64 = 3600;
const SKEW: i64 = 60;
/// Access tokens that are remembered; the one that expires first goes.
const MAX_TOKENS: usize = 10_000;

/// The access tokens that were given out.
pub(crate) struct AccessTokens {
    lifetime: Duration,
    expiries: Mutex<HashMap<String, Instant>>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    #[serde(default)]
    scope: String,
}

struct Refusal(&'static str, String);

impl AccessTokens {
    pub fn new(lifetime: Duration) -> AccessTokens {
        AccessTokens { lifetime, expiries: Mutex::default() }
    }

    /// Whether a token was given out here and is still valid.
    pub fn is_valid(&self, token: &str) -> bool {
        self.lock().get(token).is_some_and(|expiry| *expiry > Instant::now())
    }

    /// Forgets all tokens.
    pub fn revoke_all(&self) {
        self.lock().clear();
    }

    fn issue(&self) -> String {
        let token = format!("ya29.simulator-{}", uuid::Uuid::new_v4().simple());
        let mut expiries = self.lock();
        if expiries.len() >= MAX_TOKENS {
            let first = expiries.iter().min_by_key(|(_, expiry)| **expiry).map(|(token, _)| token.clone());
            first.and_then(|token| expiries.remove(&token));
        }
        expiries.insert(token.clone(), Instant::now() + self.lifetime);
        token
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a token request and answers it. The verdict's token is the service account's address.
pub(super) fn token(google: &GoogleState, account: &Account, headers: &HeaderMap, body: &[u8]) -> Verdict {
    match check(google, account, headers, body) {
        Err(Refusal(error, description)) => {
            let body = json!({"error": error, "error_description": description});
            Verdict::refused(Answer::json(StatusCode::BAD_REQUEST, &body))
        }
        Ok(()) => {
            let body = json!({
                "access_token": google.access_tokens.issue(),
                "expires_in": google.access_tokens.lifetime.as_secs(),
                "token_type": "Bearer"
            });
            Verdict::of(Some(account.client_email.clone()), None, Ok(Answer::json(StatusCode::OK, &body)))
        }
    }
}

fn check(google: &GoogleState, account: &Account, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.starts_with("application/x-www-form-urlencoded") {
        return Err(invalid_request("The body must be application/x-www-form-urlencoded"));
    }
    let form: HashMap<_, _> = url::form_urlencoded::parse(body).collect();
    match form.get("grant_type").map(|value| value.as_ref()) {
        None => return Err(invalid_request("Missing required parameter: grant_type")),
        Some(GRANT_TYPE) => {}
        Some(other) => return Err(Refusal("unsupported_grant_type", format!("Invalid grant_type: {other}"))),
    }
    let assertion =
        form.get("assertion").ok_or_else(|| invalid_request("Missing required parameter: assertion"))?;
    let claims = verify(account, assertion)?;
    check_claims(google, account, &claims)
}

/// The claims of an assertion whose signature is the account's.
fn verify(account: &Account, assertion: &str) -> Result<Claims, Refusal> {
    let malformed =
        || invalid_grant("Invalid JWT: it must be three base64url parts that hold a header and claims.");
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(malformed)?;
    let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|_| malformed())?;
    if claims.iss != account.client_email {
        return Err(invalid_grant("Invalid grant: account not found"));
    }
    let known = header.kid.is_none_or(|kid| kid == account.private_key_id);
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &account.public_key);
    let verified = key.verify(signed.as_bytes(), &decode(signature)?).is_ok();
    match header.alg == "RS256" && known && verified {
        true => Ok(claims),
        false => Err(invalid_grant("Invalid JWT Signature.")),
    }
}

fn check_claims(google: &GoogleState, account: &Account, claims: &Claims) -> Result<(), Refusal> {
    let now = unix_seconds();
    let lifetime = claims.exp.saturating_sub(claims.iat);
    let in_time =
        claims.iat <= now + SKEW && claims.exp > now - SKEW && (1..=MAX_LIFETIME).contains(&lifetime);
    if !in_time {
        return Err(invalid_grant(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. \
             Check your iat and exp values in the JWT claim.",
        ));
    }
    if claims.aud != google.token_uri && !AUDIENCES.contains(&claims.aud.as_str()) {
        let right = &google.token_uri;
        return Err(invalid_grant(&format!(
            "Invalid JWT: Failed audience check. The right audience is {right}"
        )));
    }
    let mut scopes = claims.scope.split_whitespace();
    if !scopes.any(|scope| SCOPES.contains(&scope)) {
        let message =
            format!("Invalid OAuth scope or ID token audience provided for {}.", account.client_email);
        return Err(Refusal("invalid_scope", message));
    }
    Ok(())
}

fn invalid_request(description: &str) -> Refusal {
    Refusal("invalid_request", description.to_owned())
}

fn invalid_grant(description: &str) -> Refusal {
    Refusal("invalid_grant", description.to_owned())
}
