//! Who may call: HTTP Basic authentication (RFC 7617), and which tenant the caller is.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::answer;
use crate::config::Login;
use crate::error::{Error, Kind};
use crate::tenant::TenantId;

/// Whom to let in.
pub struct Access(Option<Expected>);

/// Digests have one length, so that comparing them tells nothing about the length of what they are of.
struct Expected {
    username: [u8; 32],
    password: [u8; 32],
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Access {
    /// None: everybody is let in.
    pub fn new(login: Option<&Login>) -> Self {
        Self(login.map(|login| Expected {
            username: sha256(login.username.as_bytes()),
            password: sha256(login.password.reveal().as_bytes()),
        }))
    }

    fn tenant(&self, headers: &HeaderMap) -> Option<TenantId> {
        let allowed = match &self.0 {
            None => true,
            Some(expected) => presented(headers).is_some_and(|pair| expected.matches(&pair)),
        };
        allowed.then(TenantId::default_tenant)
    }
}

impl Expected {
    fn matches(&self, pair: &[u8]) -> bool {
        let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
        let (username, password) = pair.split_at(colon);
        let username = sha256(username).ct_eq(&self.username);
        let password = sha256(password.get(1..).unwrap_or_default()).ct_eq(&self.password);
        (username & password).into()
    }
}

/// Lets the request through with its [`TenantId`], or answers 401.
pub async fn check(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let Some(tenant) = access.tenant(request.headers()) else {
        return answer::error(Error::new(Kind::AccessDenied, "access_denied", "invalid credentials"));
    };
    request.extensions_mut().insert(tenant.clone());
    let mut response = next.run(request).await;
    // For the log.
    response.extensions_mut().insert(tenant);
    response
}

/// `username:password` of the request, if it has one such header.
fn presented(headers: &HeaderMap) -> Option<Zeroizing<Vec<u8>>> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (header, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    BASE64.decode(token.trim()).ok().map(Zeroizing::new)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest(&SHA256, bytes).as_ref());
    output
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::Hidden;

    fn let_in(header: &str) -> bool {
        let login = Login { username: "me".into(), password: Hidden::new("open:sesame".into()) };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        Access::new(Some(&login)).tenant(&headers).is_some()
    }

    fn encoded(pair: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(pair)
    }

    #[test]
    fn the_right_pair_in_any_spelling_of_the_scheme() {
        let right = encoded("me:open:sesame");
        for scheme in ["Basic", "basic", "BASIC"] {
            assert!(let_in(&format!("{scheme} {right}")), "{scheme}");
        }
        assert!(let_in(&format!("Basic   {}", right.trim_end_matches('='))));
    }

    #[test]
    fn nothing_else() {
        for pair in [
            "me:open",
            "me:open:sesame:more",
            "me:",
            "me",
            ":open:sesame",
            "you:open:sesame",
            "",
            "ME:open:sesame",
        ] {
            assert!(!let_in(&format!("Basic {}", encoded(pair))), "{pair}");
        }
        let right = encoded("me:open:sesame");
        assert!(!let_in(&right));
        assert!(!let_in(&format!("Bearer {right}")));
        assert!(!let_in("Basic %%%"));
        assert!(!let_in("Basic"));
    }

    #[test]
    fn two_headers_are_none() {
        let login = Login { username: "me".into(), password: Hidden::new("x".into()) };
        let mut headers = HeaderMap::new();
        let right = HeaderValue::from_str(&format!("Basic {}", encoded("me:x"))).unwrap();
        headers.append(AUTHORIZATION, right.clone());
        headers.append(AUTHORIZATION, right);
        assert!(Access::new(Some(&login)).tenant(&headers).is_none());
        assert!(Access::new(Some(&login)).tenant(&HeaderMap::new()).is_none());
        assert!(Access::new(None).tenant(&HeaderMap::new()).is_some());
    }
}
