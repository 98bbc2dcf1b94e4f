use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use pushlet_model::contract::CredentialFault;

/// Status, `Retry-After` in seconds, body; `{request}` in a body stands for the request.
type Answer = Result<(u16, Option<u64>, String), TokenHttpError>;

/// A token endpoint that answers what it was told to, in that order.
pub(super) struct Endpoint {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<(String, String)>>,
    authorizations: Mutex<Vec<Option<HeaderValue>>>,
    /// Each answer takes a permit.
    permits: Semaphore,
}

impl Endpoint {
    /// One that is never asked.
    pub(super) fn silent() -> Arc<Self> {
        Self::new([])
    }

    pub(super) fn new(answers: impl IntoIterator<Item = (u16, String)>) -> Arc<Self> {
        let answers = answers.into_iter().map(|(status, body)| Ok((status, None, body))).collect();
        let permits = Semaphore::new(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            answers: Mutex::new(answers),
            requests: Mutex::default(),
            authorizations: Mutex::default(),
            permits,
        })
    }

    /// One that holds its answers back until `permits` get permits.
    fn held(answers: impl IntoIterator<Item = (u16, String)>) -> Arc<Self> {
        let endpoint = Self::new(answers);
        endpoint.permits.forget_permits(Semaphore::MAX_PERMITS);
        endpoint
    }

    fn push(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    /// The URL and the body of each request.
    pub(super) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }

    /// What each request was authorised with.
    pub(super) fn authorizations(&self) -> Vec<Option<HeaderValue>> {
        self.authorizations.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// The endpoint as the host's HTTP client shows it.
pub(super) struct Client(pub(super) Arc<Endpoint>);

impl TokenClient for Client {
    fn post(&self, request: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, TokenHttpError>> {
        let endpoint = self.0.clone();
        Box::pin(async move {
            endpoint.requests.lock().unwrap().push((request.url.to_string(), request.body.to_string()));
            endpoint.authorizations.lock().unwrap().push(request.authorization);
            endpoint.permits.acquire().await.unwrap().forget();
            let answer = endpoint.answers.lock().unwrap().pop_front().expect("one request too many");
            let (status, retry_after, body) = answer?;
            let body = body.replace("{request}", &request.body);
            let retry_after = retry_after.map(Duration::from_secs);
            Ok(TokenResponse { status, retry_after, body: Secret::new(body.into_bytes()) })
        })
    }
}

fn token(text: &str) -> (u16, String) {
    (200, json!({"access_token": text, "expires_in": 3600, "token_type": "Bearer"}).to_string())
}

struct Google {
    endpoint: Arc<Endpoint>,
    authorizer: Authorizer,
    credential: Credential,
    kind: CredentialKind,
    workshop: Workshop,
}

impl Google {
    fn new(endpoint: Arc<Endpoint>) -> Arc<Self> {
        let workshop = Workshop::new();
        workshop.openssl(&format!("genpkey {RSA} -out key.pem"));
        let file = service_account(&workshop.read("key.pem")).to_string();
        let credential = accept(&[account_kind()], &[("fcm_service_account", file.as_bytes())]);
        let authorizer = authorizer(endpoint.clone());
        check_manifest(&[account_kind()]).unwrap();
        Arc::new(Self { endpoint, authorizer, credential, kind: account_kind(), workshop })
    }

    async fn ask(&self, now: &ClockReading) -> Result<(String, TokenHandle), AuthorizeError> {
        let exchange = AuthorizeRequest {
            tenant: tenant(),
            credential: &self.credential,
            kind: &self.kind,
            settings: &[],
            origin: "https://fcm",
            token_trust: &Untrusted,
            request: None,
        };
        match self.authorizer.authorize(exchange, now, soon()).await? {
            Authorization::Header { value, token, .. } => {
                assert!(value.is_sensitive());
                Ok((value.to_str().unwrap().to_owned(), token.unwrap()))
            }
            _ => panic!("no header"),
        }
    }

    async fn token(&self, now: &ClockReading) -> String {
        self.ask(now).await.unwrap().0
    }

    /// Waits until that many requests arrived.
    async fn requests(&self, count: usize) {
        let arrive = async {
            while self.endpoint.count() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout_at(soon().into(), arrive).await.expect("no such request came");
    }
}

#[tokio::test]
async fn asks_with_a_signed_assertion() {
    use base64::Engine;
    let google = Google::new(Endpoint::new([token("ya29.first")]));
    let now = ClockReading::now();
    assert_eq!(google.token(&now).await, "Bearer ya29.first");
    let (url, body) = google.endpoint.requests.lock().unwrap()[0].clone();
    assert_eq!(url, "https://oauth2.googleapis.com/token");
    let form: Vec<_> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!(form.len(), 2);
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    assert_eq!(form[0], ("grant_type".to_owned(), grant.to_owned()));
    assert_eq!(form[1].0, "assertion");
    let (message, signature) = form[1].1.rsplit_once('.').unwrap();
    let decode = |part: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    google.workshop.write("message", message);
    google.workshop.write("signature", decode(signature));
    google.workshop.openssl("pkey -in key.pem -pubout -out public.pem");
    google.workshop.openssl("dgst -sha256 -verify public.pem -signature signature message");
    let (header, claims) = message.split_once('.').unwrap();
    let header: serde_json::Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!(header, json!({"alg": "RS256", "kid": "0123456789abcdef", "typ": "JWT"}));
    let claims: serde_json::Value = serde_json::from_slice(&decode(claims)).unwrap();
    let issued = now.unix_seconds();
    let expected = json!({
        "iss": "push@example-project.iam.gserviceaccount.com",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": issued,
        "exp": issued + 3600,
    });
    assert_eq!(claims, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn makes_one_request_for_many_callers() {
    let google = Google::new(Endpoint::held([token("ya29.shared")]));
    let now = ClockReading::now();
    let callers: Vec<_> = (0..32)
        .map(|_| {
            let google = google.clone();
            tokio::spawn(async move { google.token(&now).await })
        })
        .collect();
    google.requests(1).await;
    google.endpoint.permits.add_permits(32);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "Bearer ya29.shared");
    }
    assert_eq!(google.endpoint.count(), 1);
}

#[tokio::test]
async fn shares_a_failure_with_all_that_wait_for_it() {
    let google = Google::new(Endpoint::held([(400, json!({"error": "invalid_grant"}).to_string())]));
    let now = ClockReading::now();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let google = google.clone();
            tokio::spawn(async move { google.ask(&now).await.err() })
        })
        .collect();
    google.requests(1).await;
    google.endpoint.permits.add_permits(8);
    let refused = AuthorizeError::Refused { code: "invalid_grant".to_owned(), description: None };
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Some(refused.clone()));
    }
    assert_eq!(google.ask(&later(&now, 9)).await.err(), Some(refused), "a pause");
    assert_eq!(google.endpoint.count(), 1);
    google.endpoint.push(Ok((200, None, token("ya29.mended").1)));
    assert_eq!(google.token(&later(&now, 10)).await, "Bearer ya29.mended");
}

#[tokio::test]
async fn refreshes_early_and_in_the_background() {
    let google = Google::new(Endpoint::new([token("ya29.first")]));
    let start = ClockReading::now();
    assert_eq!(google.token(&start).await, "Bearer ya29.first");
    assert_eq!(google.token(&later(&start, 3299)).await, "Bearer ya29.first");
    assert_eq!(google.endpoint.count(), 1);
    google.endpoint.permits.forget_permits(Semaphore::MAX_PERMITS);
    google.endpoint.push(Ok((200, None, token("ya29.second").1)));
    assert_eq!(google.token(&later(&start, 3300)).await, "Bearer ya29.first", "nobody waits");
    assert_eq!(google.token(&later(&start, 3301)).await, "Bearer ya29.first");
    google.requests(2).await;
    google.endpoint.permits.add_permits(1);
    let replaced = async {
        while google.token(&later(&start, 3301)).await != "Bearer ya29.second" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout_at(soon().into(), replaced).await.expect("the token was not replaced");
    assert_eq!(google.endpoint.count(), 2);
    assert_eq!(google.token(&later(&start, 3300 + 3299)).await, "Bearer ya29.second");
}

#[tokio::test]
async fn keeps_the_old_token_when_a_refresh_fails() {
    let google = Google::new(Endpoint::new([token("ya29.first")]));
    let start = ClockReading::now();
    google.token(&start).await;
    google.endpoint.push(Err(TokenHttpError::new("connection refused")));
    assert_eq!(google.token(&later(&start, 3400)).await, "Bearer ya29.first");
    google.requests(2).await;
    // At 3570 s the old token is too close to its end.
    google.endpoint.push(Ok((200, None, token("ya29.second").1)));
    assert_eq!(google.token(&later(&start, 3571)).await, "Bearer ya29.second");
}

#[tokio::test]
async fn fetches_anew_when_the_service_calls_a_token_expired() {
    let google = Google::new(Endpoint::new([token("ya29.first"), token("ya29.second")]));
    let start = ClockReading::now();
    let (_, handle) = google.ask(&start).await.unwrap();
    let expired = |handle: &TokenHandle, seconds: u64| {
        google.authorizer.refused(handle, CredentialFault::Expired, &later(&start, seconds))
    };
    assert!(!expired(&handle, 29), "it was just fetched");
    assert_eq!(google.token(&later(&start, 29)).await, "Bearer ya29.first");
    assert!(expired(&handle, 30));
    assert_eq!(google.token(&later(&start, 30)).await, "Bearer ya29.second");
    assert!(expired(&handle, 31), "it was replaced meanwhile");
    assert_eq!(google.token(&later(&start, 31)).await, "Bearer ya29.second");
}

#[tokio::test]
async fn sorts_failures_by_who_must_act() {
    let long = "x".repeat(70_000);
    let unavailable = |reason: &str| AuthorizeError::unavailable(reason, None);
    let refused = |code: &str| AuthorizeError::Refused { code: code.to_owned(), description: None };
    let no_token = AuthorizeError::Malformed("its answer is not JSON with an access_token");
    let no_header = AuthorizeError::Malformed("its access_token cannot be sent in a header");
    let no_life = AuthorizeError::Malformed("its expires_in makes no sense");
    let cases = [
        (401, json!({"error": "invalid_client"}).to_string(), refused("invalid_client")),
        (400, json!({"error": "unauthorized_client"}).to_string(), refused("unauthorized_client")),
        (404, "<html>".to_owned(), refused("http_404")),
        (400, json!({"error": "two\nlines"}).to_string(), refused("http_400")),
        (
            400,
            json!({"error": "temporarily_unavailable"}).to_string(),
            unavailable("it says that it is in trouble"),
        ),
        (500, String::new(), unavailable("it answered with status 500")),
        (429, String::new(), unavailable("it answered with status 429")),
        (302, String::new(), AuthorizeError::Malformed("its status makes no sense")),
        (200, "<html>".to_owned(), no_token.clone()),
        (200, json!({"access_token": 5}).to_string(), no_token),
        (200, json!({"access_token": "a\r\nx-evil: 1"}).to_string(), no_header.clone()),
        (200, json!({"access_token": ""}).to_string(), no_header.clone()),
        (200, json!({"access_token": "x".repeat(9000)}).to_string(), no_header),
        (200, json!({"access_token": "a", "expires_in": 0}).to_string(), no_life.clone()),
        (200, json!({"access_token": "a", "expires_in": "soon"}).to_string(), no_life.clone()),
        (200, json!({"access_token": "a", "expires_in": -1e300}).to_string(), no_life.clone()),
        (200, json!({"access_token": "a", "expires_in": "NaN"}).to_string(), no_life),
        (200, long, AuthorizeError::Malformed("its answer is too large")),
    ];
    for (status, body, expected) in cases {
        let google = Google::new(Endpoint::new([(status, body.clone())]));
        assert_eq!(google.ask(&ClockReading::now()).await.err(), Some(expected), "{status} {body:.100}");
    }
}

/// The owner of the account reads it, so it is bounded and has no characters that hide or turn text.
#[tokio::test]
async fn the_description_of_a_refusal_is_told() {
    let description = "Invalid JWT: \u{202e}iat\n\u{7f} is in the future";
    let body = json!({"error": "invalid_grant", "error_description": description}).to_string();
    let google = Google::new(Endpoint::new([(400, body)]));
    let error = google.ask(&ClockReading::now()).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "the token endpoint refused the credential: invalid_grant (Invalid JWT:  iat   is in the future)"
    );
    let body = json!({"error": "invalid_grant", "error_description": "x".repeat(10_000)}).to_string();
    let google = Google::new(Endpoint::new([(400, body)]));
    assert!(google.ask(&ClockReading::now()).await.err().unwrap().to_string().len() < 300);
}

#[tokio::test]
async fn an_endpoint_that_may_not_be_asked_is_the_credentials_fault() {
    let google = Google::new(Endpoint::silent());
    let reason = "the address is not a public one".to_owned();
    google.endpoint.push(Err(TokenHttpError { reason, detail: "10.0.0.1".to_owned(), forbidden: true }));
    let error = google.ask(&ClockReading::now()).await.err().unwrap();
    assert_eq!(error.to_string(), "the token endpoint may not be asked: the address is not a public one");
}

#[tokio::test]
async fn honours_retry_after() {
    let google = Google::new(Endpoint::silent());
    let start = ClockReading::now();
    google.endpoint.push(Ok((503, Some(20), String::new())));
    let error = google.ask(&start).await.err().unwrap();
    assert!(
        matches!(error, AuthorizeError::Unavailable { retry_after: Some(after), .. } if after.as_secs() == 20)
    );
    assert!(google.ask(&later(&start, 19)).await.is_err());
    assert_eq!(google.endpoint.count(), 1);
    google.endpoint.push(Ok((200, None, token("ya29.late").1)));
    assert_eq!(google.token(&later(&start, 20)).await, "Bearer ya29.late");
}

#[tokio::test]
async fn bounds_the_life_of_a_token() {
    for expires_in in [json!(1e300), json!("999999999999")] {
        let long = json!({"access_token": "first", "expires_in": expires_in}).to_string();
        let google = Google::new(Endpoint::new([(200, long), token("second")]));
        let start = ClockReading::now();
        google.token(&start).await;
        assert_eq!(google.token(&later(&start, 24 * 3600 - 29)).await, "Bearer second");
    }
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_its_deadline() {
    let google = Google::new(Endpoint::held([token("ya29.late")]));
    let exchange = AuthorizeRequest {
        tenant: tenant(),
        credential: &google.credential,
        kind: &google.kind,
        settings: &[],
        origin: "https://fcm",
        token_trust: &Untrusted,
        request: None,
    };
    let now = ClockReading::now();
    let error = google.authorizer.authorize(exchange, &now, Instant::now()).await.err();
    assert_eq!(error, Some(AuthorizeError::DeadlineExceeded));
    google.endpoint.permits.add_permits(1);
    assert_eq!(google.token(&now).await, "Bearer ya29.late", "the request went on");
    assert_eq!(google.endpoint.count(), 1);
}
