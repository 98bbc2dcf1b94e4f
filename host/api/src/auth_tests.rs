#![allow(clippy::unwrap_used)]
use axum::http::HeaderValue;
use tokio::time::advance;

use super::*;
use crate::tests::{ask, limits, observability, open_router, router_for};
use pushlet_gateway::tenants::Wanted;
use pushlet_settings::{CallerConfig, HiddenText, Login};

const ADMIN: &str = "0123456789abcdef";

fn login(password: &str) -> Option<Login> {
    Some(Login { username: "me".into(), password: HiddenText::new(password.into()) })
}

fn authenticator(login: Option<Login>, admin: Option<&str>) -> Authenticator {
    let admin = admin.map(|key| HiddenText::new(key.into()));
    let callers = CallerConfig { login, admin, ..CallerConfig::default() };
    let tenants = Arc::new(Tenants::in_memory().unwrap());
    Authenticator::new(
        tenants,
        &LiveConfig::new(&callers),
        &limits(),
        &InFlightRequests::at_most(1),
        &observability(),
    )
}

/// With tenants of its own: `(authenticator, acme's key)`.
fn with_tenant(login: Option<Login>, admin: Option<&str>) -> (Authenticator, String) {
    let authenticator = authenticator(login, admin);
    let acme = TenantId::new("acme");
    let key = authenticator.tenants.put(&acme, Wanted::default()).unwrap().unwrap();
    (authenticator, key.key.reveal().to_owned())
}

/// Who it is: `operator`, a tenant's id, or nobody.
fn who(authenticator: &Authenticator, header: &str) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
    name(caller(authenticator, &headers))
}

fn caller(authenticator: &Authenticator, headers: &HeaderMap) -> Option<Caller> {
    authenticator.caller(&Credentials::of(headers))
}

fn name(caller: Option<Caller>) -> Option<String> {
    caller.map(|caller| match caller {
        Caller::Operator => "operator".to_owned(),
        Caller::Tenant(permission) => permission.tenant().id.to_string(),
    })
}

fn encoded(pair: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(pair)
}

#[test]
fn the_right_pair_in_any_spelling_of_the_scheme() {
    let right = encoded("me:open:sesame");
    let authenticator = authenticator(login("open:sesame"), None);
    for scheme in ["Basic", "basic", "BASIC"] {
        assert_eq!(who(&authenticator, &format!("{scheme} {right}")).as_deref(), Some("default"), "{scheme}");
    }
    assert!(who(&authenticator, &format!("Basic   {}", right.trim_end_matches('='))).is_some());
}

#[test]
fn nothing_else() {
    let authenticator = authenticator(login("open:sesame"), Some(ADMIN));
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
        assert_eq!(who(&authenticator, &format!("Basic {}", encoded(pair))), None, "{pair}");
    }
    let right = encoded("me:open:sesame");
    for header in
        [&right, &format!("Bearer {right}"), "Basic %%%", "Basic", "Bearer", "Bearer 0123456789abcde"]
    {
        assert_eq!(who(&authenticator, header), None, "{header}");
    }
}

#[test]
fn two_headers_are_none() {
    let authenticator = authenticator(login("x"), None);
    let mut headers = HeaderMap::new();
    let right = HeaderValue::from_str(&format!("Basic {}", encoded("me:x"))).unwrap();
    headers.append(AUTHORIZATION, right.clone());
    headers.append(AUTHORIZATION, right);
    assert_eq!(name(caller(&authenticator, &headers)), None);
    assert_eq!(name(caller(&authenticator, &HeaderMap::new())), None);
}

#[test]
fn a_key_is_its_tenants_as_bearer_and_as_password() {
    let (authenticator, key) = with_tenant(login("x"), Some(ADMIN));
    assert_eq!(who(&authenticator, &format!("Bearer {key}")).as_deref(), Some("acme"));
    assert_eq!(who(&authenticator, &format!("bearer {key}")).as_deref(), Some("acme"));
    assert_eq!(
        who(&authenticator, &format!("Basic {}", encoded(&format!("acme:{key}")))).as_deref(),
        Some("acme")
    );
    for other in ["default", "me", "ACME", ""] {
        assert_eq!(who(&authenticator, &format!("Basic {}", encoded(&format!("{other}:{key}")))), None);
    }
    assert_eq!(who(&authenticator, &format!("Bearer {ADMIN}")).as_deref(), Some("operator"));
    assert_eq!(who(&authenticator, &format!("Bearer {key}x")), None);
}

#[test]
fn only_a_server_without_login_and_operator_is_open() {
    let nothing = HeaderMap::new();
    let (open, key) = with_tenant(None, None);
    assert_eq!(name(caller(&open, &nothing)).as_deref(), Some("default"));
    assert_eq!(who(&open, &format!("Bearer {key}")).as_deref(), Some("acme"));
    assert_eq!(who(&open, "Bearer something").as_deref(), Some("default"));
    assert_eq!(who(&open, &format!("Bearer {key}x")), None, "a key that is not good");
    assert_eq!(who(&open, &format!("Basic {}", encoded(&format!("acme:{key}x")))), None);
    assert_eq!(name(caller(&authenticator(None, Some(ADMIN)), &nothing)), None);
    assert_eq!(name(caller(&authenticator(login("x"), None), &nothing)), None);
}

fn request(method: &str, uri: &str) -> Request {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .body(axum::body::Body::empty())
        .unwrap()
}

fn from(address: &str, authorization: &str) -> Request {
    let mut request = request("GET", "/v1/status");
    let peer = Peer::new(address.parse().unwrap(), &Arc::default());
    request.extensions_mut().insert(Arc::new(peer));
    request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn who_shows_wrong_credentials_again_and_again_must_wait_and_the_right_ones_work() {
    let callers = CallerConfig { login: login("x"), ..CallerConfig::default() };
    let router = router_for(&limits(), &callers).0;
    let (right, wrong) = (format!("Basic {}", encoded("me:x")), format!("Basic {}", encoded("me:y")));
    for _ in 0..limits().wrong_credentials {
        assert_eq!(ask(&router, from("192.0.2.1", &wrong)).await.error(), (401, "access_denied"));
    }
    let got = ask(&router, from("192.0.2.1", &wrong)).await;
    assert_eq!(got.error(), (429, "too_many_wrong_credentials"));
    assert_eq!(got.header("retry-after"), Some("60"));
    assert_eq!(ask(&router, from("192.0.2.1", &right)).await.status, 200);
    assert_eq!(ask(&router, from("192.0.2.2", &wrong)).await.status, 401);
    let got = ask(&router, from("192.0.2.1", "Digest nothing")).await;
    assert_eq!(got.status, 401, "who shows nothing guesses nothing");
    let metrics = ask(&router, {
        let mut request = from("192.0.2.1", &right);
        *request.uri_mut() = "/metrics".parse().unwrap();
        request
    });
    let text = metrics.await.text;
    assert!(text.contains("pushlet_wrong_credentials_total{status=\"401\"} 11\n"), "{text}");
    assert!(text.contains("pushlet_wrong_credentials_total{status=\"429\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_permit_is_taken_until_the_answer_has_been_read() {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let (router, in_flight) = open_router();
    for read in [true, false] {
        let answer = router.clone().oneshot(request("GET", "/v1/status")).await.unwrap();
        assert_eq!(in_flight.count(), 1);
        if read {
            answer.into_body().collect().await.unwrap();
        } else {
            drop(answer);
        }
        assert_eq!(in_flight.count(), 0);
    }
}

#[tokio::test]
async fn metrics_answer_when_all_permits_are_taken() {
    let (router, in_flight) = open_router();
    let permits: Vec<_> = std::iter::from_fn(|| in_flight.begin(None).ok()).collect();
    assert_eq!(ask(&router, request("GET", "/v1/status")).await.error(), (503, "too_many_requests"));
    for path in ["/metrics", "/healthz"] {
        assert_eq!(ask(&router, request("GET", path)).await.status, 200, "{path}");
    }
    assert_eq!(ask(&router, request("GET", "/readyz")).await.error(), (503, "not_ready"));
    drop(permits);
}

fn address(last: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + last).into()
}

#[tokio::test(start_paused = true)]
async fn too_many_from_one_address_wait_and_others_do_not() {
    let wrong = WrongCredentials::new(2);
    let start = Instant::now();
    assert_eq!((wrong.count(address(1)).await, wrong.count(address(1)).await), (None, None));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(wrong.count(address(1)).await, Some(WINDOW));
    assert_eq!(start.elapsed(), DELAY);
    assert_eq!(wrong.count(address(2)).await, None);
}

#[tokio::test(start_paused = true)]
async fn after_two_windows_all_is_forgotten_and_after_one_it_is_not() {
    let wrong = WrongCredentials::new(1);
    wrong.count(address(1)).await;
    advance(WINDOW).await;
    assert_eq!(wrong.count(address(1)).await, Some(WINDOW));
    advance(2 * WINDOW).await;
    assert_eq!(wrong.count(address(1)).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_network_is_one_address() {
    let wrong = WrongCredentials::new(1);
    assert_eq!(wrong.count("2001:db8::1".parse().unwrap()).await, None);
    assert_eq!(wrong.count("2001:db8::2".parse().unwrap()).await, Some(WINDOW));
    assert_eq!(wrong.count("2001:db8:0:1::1".parse().unwrap()).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_table_is_bounded() {
    let wrong = WrongCredentials::new(5);
    for last in 0..50_000 {
        wrong.count(address(last)).await;
    }
    let windows = wrong.windows.lock();
    assert!(windows.current.len() <= MOST_ADDRESSES && windows.previous.len() <= MOST_ADDRESSES);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait_at_a_time() {
    let wrong = std::sync::Arc::new(WrongCredentials::new(1));
    wrong.count(address(1)).await;
    let waiting: Vec<_> = (0..MOST_DELAYED)
        .map(|_| {
            tokio::spawn({
                let wrong = wrong.clone();
                async move { wrong.count(address(1)).await }
            })
        })
        .collect();
    while wrong.delayed.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    assert_eq!(wrong.count(address(1)).await, Some(WINDOW));
    assert_eq!(start.elapsed(), Duration::ZERO);
    for waited in waiting {
        assert_eq!(waited.await.unwrap(), Some(WINDOW));
    }
}
