//! Who may call, and as whom: HTTP Basic authentication (RFC 7617) and bearer keys (RFC 6750).

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::admission::{Place, UnderWay};
use super::answer;
use crate::config::{Callers, Login};
use crate::error::{Error, Kind};
use crate::tenant::TenantId;
use crate::tenants::{Tenant, Tenants, looks_like_a_key};

/// Whom to let in.
///
/// Without a login and an operator's key everybody is the default tenant, and may still show a tenant's key;
/// with either of them nobody is let in who shows nothing.
pub struct Access {
    tenants: Arc<Tenants>,
    login: Option<Expected>,
    admin: Option<[u8; 32]>,
    under_way: UnderWay,
}

/// Who calls.
#[derive(Clone)]
pub enum Caller {
    /// Who has the operator's key. It is no tenant.
    Operator,
    Tenant(Arc<Tenant>),
}

/// What is known of a request that was let in.
#[derive(Clone)]
struct Admitted {
    caller: Caller,
    place: Place,
    has_operator: bool,
}

/// The tenant that calls. The operator, who has no applications, is answered 403.
pub struct ByTenant(pub TenantId);

/// Lets the request through if it is the operator's.
pub struct Operator;

/// Is there an operator? Else what only the operator may do can not be done at all.
pub struct HasOperator(pub bool);

/// Digests have one length, so that comparing them tells nothing about the length of what they are of.
struct Expected {
    username: [u8; 32],
    password: [u8; 32],
}

/// What a request shows.
enum Shown {
    /// `username:password`
    Basic(Zeroizing<Vec<u8>>),
    Bearer(Zeroizing<String>),
    /// No such header, more than one, or one that can not be read.
    Nothing,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Access {
    pub fn new(tenants: Arc<Tenants>, callers: &Callers, under_way: UnderWay) -> Self {
        let expected = |login: &Login| Expected {
            username: sha256(login.username.as_bytes()),
            password: sha256(login.password.reveal().as_bytes()),
        };
        Self {
            tenants,
            login: callers.login.as_ref().map(expected),
            admin: callers.admin.as_ref().map(|key| sha256(key.reveal().as_bytes())),
            under_way,
        }
    }

    /// The caller's place among the requests under way, or what the limits say.
    fn place(&self, caller: &Caller) -> Result<Place, Error> {
        let own = match caller {
            Caller::Operator => None,
            Caller::Tenant(tenant) => Some(self.tenants.begin_request(tenant)?),
        };
        self.under_way.begin(own)
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let shown = Shown::by(headers);
        let known = match &shown {
            Shown::Bearer(key) => self.bearer(key),
            Shown::Basic(pair) => self.pair(pair),
            Shown::Nothing => None,
        };
        let is_open = self.login.is_none() && self.admin.is_none();
        // A key that is not good any more must not open another door.
        known.or_else(|| (is_open && !shown.holds_key()).then(|| self.default_tenant()).flatten())
    }

    fn bearer(&self, key: &str) -> Option<Caller> {
        if let Some(admin) = &self.admin
            && bool::from(sha256(key.as_bytes()).ct_eq(admin))
        {
            return Some(Caller::Operator);
        }
        self.tenants.by_key(key).map(Caller::Tenant)
    }

    /// The configured name and password, or a tenant's id and key.
    fn pair(&self, pair: &[u8]) -> Option<Caller> {
        let (username, password) = split(pair)?;
        if self.login.as_ref().is_some_and(|login| login.matches(username, password)) {
            return self.default_tenant();
        }
        let tenant = self.tenants.by_key(std::str::from_utf8(password).ok()?)?;
        (tenant.id.as_str().as_bytes() == username).then_some(Caller::Tenant(tenant))
    }

    fn default_tenant(&self) -> Option<Caller> {
        self.tenants.get(&TenantId::default_tenant()).ok().map(Caller::Tenant)
    }
}

impl Expected {
    fn matches(&self, username: &[u8], password: &[u8]) -> bool {
        let username = sha256(username).ct_eq(&self.username);
        let password = sha256(password).ct_eq(&self.password);
        (username & password).into()
    }
}

impl Shown {
    fn by(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (all.next(), all.next()) else { return Self::Nothing };
        let Some((scheme, token)) = header.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Nothing;
        };
        let token = token.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(Zeroizing::new(token.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Nothing;
        }
        BASE64.decode(token).map_or(Self::Nothing, |pair| Self::Basic(Zeroizing::new(pair)))
    }

    fn holds_key(&self) -> bool {
        match self {
            Self::Bearer(key) => looks_like_a_key(key.as_bytes()),
            Self::Basic(pair) => split(pair).is_some_and(|(_, password)| looks_like_a_key(password)),
            Self::Nothing => false,
        }
    }
}

/// Lets the request through with its [`Caller`] and its [`Place`], or answers 401, or what the limits say.
pub async fn check(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let Some(caller) = access.caller(request.headers()) else {
        return answer::error(Error::new(Kind::AccessDenied, "access_denied", "invalid credentials"));
    };
    let tenant = caller.tenant().cloned();
    let mut response = match access.place(&caller) {
        Ok(place) => {
            let has_operator = access.admin.is_some();
            request.extensions_mut().insert(Admitted { caller, place: place.clone(), has_operator });
            let response = next.run(request).await;
            drop(place);
            response
        }
        Err(error) => answer::error(error),
    };
    if let Some(tenant) = tenant {
        // For the log.
        response.extensions_mut().insert(tenant);
    }
    response
}

impl Caller {
    fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Operator => None,
            Self::Tenant(tenant) => Some(&tenant.id),
        }
    }
}

impl Admitted {
    fn of(parts: &Parts) -> Result<&Self, Error> {
        parts.extensions.get().ok_or_else(|| Error::internal("a route that asks who calls is not guarded"))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Admitted::of(parts)?.caller.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for Place {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Admitted::of(parts)?.place.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for HasOperator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self(Admitted::of(parts)?.has_operator))
    }
}

impl<S: Sync> FromRequestParts<S> for ByTenant {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Admitted::of(parts)?.caller.tenant().cloned().map(Self).ok_or_else(|| {
            let message =
                "the operator's key is for /v1/tenants and /metrics; everything else needs a tenant's key";
            Error::new(Kind::Forbidden, "tenant_required", message)
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let (code, message) = match Admitted::of(parts)? {
            Admitted { caller: Caller::Operator, .. } => return Ok(Self),
            Admitted { has_operator: true, .. } => ("admin_required", "this needs the operator's key"),
            _ => ("admin_disabled", "this needs the operator's key, and this server has none: set admin.key"),
        };
        Err(Error::new(Kind::Forbidden, code, message))
    }
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some((pair.get(..colon)?, pair.get(colon + 1..)?))
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
    use crate::tenants::Wanted;

    const ADMIN: &str = "0123456789abcdef";

    fn login(password: &str) -> Option<Login> {
        Some(Login { username: "me".into(), password: Hidden::new(password.into()) })
    }

    fn access(login: Option<Login>, admin: Option<&str>) -> Access {
        let admin = admin.map(|key| Hidden::new(key.into()));
        let callers = Callers { login, admin };
        Access::new(Arc::new(Tenants::in_memory().unwrap()), &callers, UnderWay::at_most(1))
    }

    /// With tenants of its own: `(access, acme's key)`.
    fn with_tenant(login: Option<Login>, admin: Option<&str>) -> (Access, String) {
        let access = access(login, admin);
        let acme = TenantId::new("acme");
        let key = access.tenants.put(&acme, Wanted::default()).unwrap().unwrap();
        (access, key.key.reveal().to_owned())
    }

    /// Who it is: `operator`, a tenant's id, or nobody.
    fn who(access: &Access, header: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        name(access.caller(&headers))
    }

    fn name(caller: Option<Caller>) -> Option<String> {
        caller.map(|caller| match caller {
            Caller::Operator => "operator".to_owned(),
            Caller::Tenant(tenant) => tenant.id.to_string(),
        })
    }

    fn encoded(pair: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(pair)
    }

    #[test]
    fn the_right_pair_in_any_spelling_of_the_scheme() {
        let right = encoded("me:open:sesame");
        let access = access(login("open:sesame"), None);
        for scheme in ["Basic", "basic", "BASIC"] {
            assert_eq!(who(&access, &format!("{scheme} {right}")).as_deref(), Some("default"), "{scheme}");
        }
        assert!(who(&access, &format!("Basic   {}", right.trim_end_matches('='))).is_some());
    }

    #[test]
    fn nothing_else() {
        let access = access(login("open:sesame"), Some(ADMIN));
        for pair in [
            "me:open",
            "me:open:sesame:more",
            "me:",
            "me",
            ":open:sesame",
            "you:open:sesame",
            "",
            "ME:open:sesame",
            "me:0123456789abcdef",
        ] {
            assert_eq!(who(&access, &format!("Basic {}", encoded(pair))), None, "{pair}");
        }
        let right = encoded("me:open:sesame");
        for header in
            [&right, &format!("Bearer {right}"), "Basic %%%", "Basic", "Bearer", "Bearer 0123456789abcde"]
        {
            assert_eq!(who(&access, header), None, "{header}");
        }
    }

    #[test]
    fn two_headers_are_none() {
        let access = access(login("x"), None);
        let mut headers = HeaderMap::new();
        let right = HeaderValue::from_str(&format!("Basic {}", encoded("me:x"))).unwrap();
        headers.append(AUTHORIZATION, right.clone());
        headers.append(AUTHORIZATION, right);
        assert_eq!(name(access.caller(&headers)), None);
        assert_eq!(name(access.caller(&HeaderMap::new())), None);
    }

    #[test]
    fn a_key_is_its_tenants_as_bearer_and_as_password() {
        let (access, key) = with_tenant(login("x"), Some(ADMIN));
        assert_eq!(who(&access, &format!("Bearer {key}")).as_deref(), Some("acme"));
        assert_eq!(who(&access, &format!("bearer {key}")).as_deref(), Some("acme"));
        assert_eq!(
            who(&access, &format!("Basic {}", encoded(&format!("acme:{key}")))).as_deref(),
            Some("acme")
        );
        for other in ["default", "me", "ACME", ""] {
            assert_eq!(who(&access, &format!("Basic {}", encoded(&format!("{other}:{key}")))), None);
        }
        assert_eq!(who(&access, &format!("Bearer {ADMIN}")).as_deref(), Some("operator"));
        assert_eq!(who(&access, &format!("Bearer {key}x")), None);
    }

    #[test]
    fn only_a_server_without_login_and_operator_is_open() {
        let nothing = HeaderMap::new();
        let (open, key) = with_tenant(None, None);
        assert_eq!(name(open.caller(&nothing)).as_deref(), Some("default"));
        assert_eq!(who(&open, &format!("Bearer {key}")).as_deref(), Some("acme"));
        assert_eq!(who(&open, "Bearer something").as_deref(), Some("default"));
        assert_eq!(who(&open, &format!("Bearer {key}x")), None, "a key that is not good");
        assert_eq!(who(&open, &format!("Basic {}", encoded(&format!("acme:{key}x")))), None);
        assert_eq!(name(access(None, Some(ADMIN)).caller(&nothing)), None);
        assert_eq!(name(access(login("x"), None).caller(&nothing)), None);
    }
}
