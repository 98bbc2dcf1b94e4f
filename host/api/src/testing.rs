//! A backend that notes what it is asked and answers as a test says.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tower::ServiceExt as _;

use super::*;
use pushlet_gateway::tenants::Held;
use pushlet_gateway::{DeliveryResult, Fate, Fields, Via};
use pushlet_model::contract::{ConnectionHint, Disposition, Outcome, Target};
use pushlet_settings::ConfigLayers;

#[derive(Default)]
pub struct Fake {
    pub sent: Mutex<Vec<gateway::Send>>,
    pub registered: Mutex<Vec<Registration>>,
    pub report: Mutex<Option<Result<Report, Error>>>,
    pub not_ready: Option<String>,
    /// A send takes a permit of this first, if it is there.
    pub gate: Option<Arc<Semaphore>>,
    pub finished: Arc<Notify>,
    pub panics: bool,
    pub tenants: OnceLock<Arc<Tenants>>,
}

impl Backend for Fake {
    fn register(&self, _: &TenantId, registration: Registration) -> Result<String, Error> {
        let id = registration.application_id.clone();
        self.registered.lock().unwrap().push(registration);
        id.ok_or_else(|| {
            Error::field(
                "missing_apns_certificate",
                "apns_p12",
                "an apns_p12 or apns_pem certificate is required for this call",
            )
        })
    }

    fn send(&self, _: TenantId, send: gateway::Send) -> BoxFuture<'static, Result<Report, Error>> {
        let targets = send.targets.clone();
        self.sent.lock().unwrap().push(send);
        let report = self.report.lock().unwrap().take();
        let (gate, finished, panics) = (self.gate.clone(), self.finished.clone(), self.panics);
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            assert!(!panics, "the gateway is broken");
            finished.notify_one();
            let report = report.unwrap_or_else(|| Ok(report_of("apns", Disposition::Delivered)));
            report.map(|report| Report { targets, ..report })
        })
    }

    fn feedback(&self, _: &TenantId, application_id: &str, _: FeedbackRead) -> Result<Vec<DeadToken>, Error> {
        let since = UNIX_EPOCH + Duration::from_millis(1_354_055_047_999);
        match application_id {
            "app" => Ok(vec![DeadToken { device_token: "abcd".into(), since }]),
            "empty" => Ok(Vec::new()),
            "panic" => panic!("feedback is broken"),
            _ => Err(no_application()),
        }
    }

    fn readiness(&self) -> BoxFuture<'static, Readiness> {
        let readiness = Readiness { reason: self.not_ready.clone(), ..Readiness::default() };
        Box::pin(async move { readiness })
    }

    fn standing(&self, tenant: &TenantId) -> Standing {
        Standing { tenant: tenant.to_string(), ..Standing::default() }
    }

    fn figures(&self, _: &mut String, _: &[LimitUse]) -> fmt::Result {
        Ok(())
    }

    fn uploads(&self) -> Option<Uploads> {
        None
    }

    fn described(&self, _: &TenantId) -> Vec<Described> {
        Vec::new()
    }

    fn applications(&self, _: &TenantId) -> Vec<ApplicationView> {
        Vec::new()
    }

    fn application(&self, _: &TenantId, _: &str) -> Result<ApplicationView, Error> {
        Err(no_application())
    }

    fn answers(&self) -> Option<gateway::AnswerStore> {
        None
    }

    fn remove(&self, _: TenantId, _: String) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async { Err(no_application()) })
    }

    fn manage(&self, _: TenantId, _: gateway::Errand) -> BoxFuture<'static, Managed> {
        Box::pin(async { Err(no_application()) })
    }

    fn stream(&self, _: TenantId, _: gateway::Shared) -> BoxFuture<'static, Opened> {
        Box::pin(async { Err(no_application()) })
    }

    fn tenants(&self) -> &Arc<Tenants> {
        self.tenants.get_or_init(|| Arc::new(Tenants::in_memory().unwrap()))
    }

    fn usage(&self, tenant: &TenantId) -> Result<Usage, Error> {
        self.tenants().usage(tenant, Held::default())
    }

    fn remove_tenant(&self, tenant: TenantId) -> BoxFuture<'static, Result<(), Error>> {
        let removed = self.tenants().remove(&tenant);
        Box::pin(async { removed })
    }
}

fn no_application() -> Error {
    let message = "no application found for the provided application_id";
    Error::new(Kind::NotFound, "application_not_found", message)
}

pub fn report_of(provider: &str, disposition: Disposition) -> Report {
    let outcome =
        Outcome { disposition, id: None, code: None, message: None, connection: ConnectionHint::Keep };
    Report {
        provider: provider.into(),
        targets: Vec::new(),
        results: vec![DeliveryResult { index: 0, fate: Fate::Settled(outcome), attempts: 1 }],
        native: None,
    }
}

pub fn limits() -> LimitsConfig {
    ConfigLayers::new().unwrap().finish().unwrap().limits
}

pub fn open_router(fake: &Arc<Fake>) -> (Router, UnderWay) {
    router(fake.clone(), &limits(), &CallerConfig::default(), &watch())
}

pub fn watch() -> Watch {
    Watch::new(None, false)
}

/// What came back, its body as JSON.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn error(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap())
    }
}

/// As every client does, it names the host.
pub async fn ask(router: &Router, mut request: Request<Body>) -> Got {
    request.headers_mut().entry("host").or_insert(HeaderValue::from_static("localhost"));
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_ne!(status, StatusCode::PERMANENT_REDIRECT);
    let text = String::from_utf8_lossy(&body).into_owned();
    Got { status: status.as_u16(), headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null), text }
}

/// Posts a form.
pub async fn post_form(router: &Router, uri: &str, form: &'static str) -> Got {
    let request = Request::post(uri).header("content-type", "application/x-www-form-urlencoded");
    ask(router, request.body(Body::from(form)).unwrap()).await
}

/// What the one send was for: `application:ID` or the inline fields, its type, its token, its fields.
pub fn seen(send: &gateway::Send) -> (String, Option<&str>, String, Vec<(String, String)>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let via = match &send.via {
        Via::Application(id) => format!("application:{id}"),
        Via::Inline(secrets) => {
            secrets.iter().map(|(name, secret)| format!("{name}={}", text(secret))).collect()
        }
    };
    let [Target::Device(token)] = &send.targets[..] else { panic!("not one device") };
    let Fields::Classic(fields, _) = &send.notification else { panic!("not classic") };
    let fields = fields.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    (via, send.provider.as_deref(), token.clone(), fields)
}
