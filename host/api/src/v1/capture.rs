//! What a send did, for a caller that asked for it with `explain` or `capture`, and for a tenant that captures a provider.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::audit::Auditor;
use super::extract::PathSegments;
use super::targets::{TargetResult, recipient_json, target_json};
use crate::Api;
use crate::caller::ByTenant;
use crate::json::{JsonBody, seconds};
use crate::openapi::schemas::{self, Guarded, Missing, Read};
use crate::response::{self, V1Error};
use pushlet_gateway::{
    CaptureSettings, CaptureState, CapturedAnswer, CapturedCall, CapturedExchange, CapturedSend,
    DeliveryResult, IndexedResult, KeptSend, Status, utc,
};
use pushlet_model::contract::{Environment, Outcome, Target};
use pushlet_model::error::Error;
use pushlet_model::notification;

/// Bytes of the body that switches a capture on.
const REQUEST_SIZE: usize = 4 << 10;
const MOST_RECORDS: usize = 100;
const LONGEST: Duration = Duration::from_secs(86_400);

/// What is captured.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// It ends when so many are kept; 20 by default.
    #[schema(minimum = 1, maximum = 100)]
    records: Option<usize>,
    /// It ends after so many seconds; 3,600 by default.
    #[serde(default, deserialize_with = "seconds")]
    #[schema(exclusive_minimum = 0.0, maximum = 86400.0, value_type = Option<f64>)]
    seconds: Option<Duration>,
    /// Only sends for this application.
    application_id: Option<String>,
    /// Keep also sends of which all targets were delivered.
    all: Option<bool>,
}

/// A capture that was switched on.
#[derive(Serialize, ToSchema)]
pub struct ProviderCapture {
    /// False: it has ended.
    active: bool,
    /// When it ends, RFC 3339.
    until: String,
    /// How many more are kept.
    records_left: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    application_id: Option<String>,
    all: bool,
    /// The latest first.
    records: Vec<KeptRecord>,
}

/// A send that was captured, or at most 10 targets of a larger one.
#[derive(Serialize, ToSchema)]
struct KeptRecord {
    /// When its results were complete, RFC 3339.
    at: String,
    application_id: String,
    /// The `x-request-id` of the send.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    results: Vec<TargetResult>,
    record: CaptureRecord,
}

/// What `pushlet provider replay` needs to make the calls of a send again.
#[derive(Debug, Serialize, ToSchema)]
pub struct CaptureRecord {
    provider: String,
    /// SHA-256 of the component, in hex.
    digest: String,
    application: ApplicationRecord,
    #[schema(value_type = schemas::Notification)]
    notification: Map<String, Value>,
    /// The calls of `encode`.
    calls: Vec<CallRecord>,
    exchanges: Vec<ExchangeRecord>,
}

/// An application as its provider sees it.
#[derive(Debug, Serialize, ToSchema)]
struct ApplicationRecord {
    environment: &'static str,
    settings: BTreeMap<String, String>,
    /// The kind of its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    credential: Option<String>,
}

/// What a call of `encode` was given, beside the application and the notification.
#[derive(Debug, Serialize, ToSchema)]
struct CallRecord {
    #[schema(value_type = Vec<schemas::Target>)]
    targets: Vec<Value>,
    /// Milliseconds since the Unix epoch.
    now: u64,
    /// Random bytes, in base64.
    entropy: String,
}

/// A request, and what came back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExchangeRecord {
    /// Those that it is for.
    #[schema(value_type = Vec<schemas::Target>)]
    targets: Vec<Value>,
    method: String,
    url: String,
    /// As the provider wrote it.
    path: String,
    /// Without the credential.
    headers: BTreeMap<String, String>,
    #[serde(flatten)]
    body: BodyRecord,
    /// The kind of credential that the server adds; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    credential: Option<String>,
    /// Absent: it was not sent, or not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    answer: Option<AnswerRecord>,
    /// What the provider made of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcomes: Option<Vec<OutcomeRecord>>,
    /// Why the provider made nothing of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<String>,
}

/// An answer with the headers that the provider sees. A body of more than 64 KiB is cut.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerRecord {
    status: u16,
    headers: BTreeMap<String, String>,
    #[serde(flatten)]
    body: BodyRecord,
    /// When it came, in milliseconds since the Unix epoch.
    now: u64,
}

/// One of the two is there.
#[derive(Debug, Serialize, ToSchema)]
struct BodyRecord {
    /// A text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    body: Option<String>,
    /// Bytes that are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    body_base64: Option<String>,
}

/// The outcome of one target.
#[derive(Debug, Serialize, ToSchema)]
struct OutcomeRecord {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
}

impl From<CapturedSend> for CaptureRecord {
    fn from(captured: CapturedSend) -> Self {
        let CapturedSend { sender, notification, calls, exchanges } = captured;
        let environment = match sender.application.environment {
            Environment::Production => "production",
            Environment::Development => "development",
        };
        let settings = sender.application.settings.iter().cloned().collect();
        let credential = sender.application.credential.clone();
        Self {
            notification: notification::to_json(&notification, &sender.provider),
            provider: sender.provider.clone(),
            digest: sender.digest.clone(),
            application: ApplicationRecord { environment, settings, credential },
            calls: calls.into_iter().map(CallRecord::from).collect(),
            exchanges: requests(exchanges),
        }
    }
}

/// Returns the requests for a caller that said `explain`, and the record for one that said `capture`.
pub fn shown(
    captured: Option<CapturedSend>,
    explain: bool,
    capture: bool,
) -> (Option<Vec<ExchangeRecord>>, Option<CaptureRecord>) {
    let Some(captured) = captured else { return (None, None) };
    let explained = explain.then(|| requests(captured.exchanges.clone()));
    (explained, capture.then(|| CaptureRecord::from(captured)))
}

fn requests(exchanges: Vec<CapturedExchange>) -> Vec<ExchangeRecord> {
    exchanges.into_iter().map(ExchangeRecord::from).collect()
}

impl From<CaptureState> for ProviderCapture {
    fn from(state: CaptureState) -> Self {
        let CaptureState { settings, is_active, until, sends } = state;
        Self {
            active: is_active,
            until: utc(until).to_string(),
            records_left: if is_active { settings.records.saturating_sub(sends.len()) } else { 0 },
            application_id: settings.application,
            all: settings.all,
            records: sends.iter().map(|send| KeptRecord::from(&**send)).collect(),
        }
    }
}

impl From<&KeptSend> for KeptRecord {
    fn from(send: &KeptSend) -> Self {
        let result = |(index, (target, result)): (usize, &(Target, DeliveryResult))| {
            TargetResult::new(IndexedResult::untried(index, result.clone())).with_target(target)
        };
        let sender = &send.captured.sender;
        Self {
            at: utc(send.at).to_string(),
            application_id: sender.application.id.clone(),
            request_id: sender.request_id.as_deref().map(str::to_owned),
            results: send.results.iter().enumerate().map(result).collect(),
            record: CaptureRecord::from(send.captured.clone()),
        }
    }
}

impl CaptureRequest {
    fn settings(self) -> Result<CaptureSettings, Error> {
        let records = self.records.unwrap_or(20);
        if !(1..=MOST_RECORDS).contains(&records) {
            let message = format!("records must be 1 to {MOST_RECORDS}");
            return Err(Error::field("invalid_records", "records", message));
        }
        let lasts = self.seconds.unwrap_or(Duration::from_secs(3600));
        if lasts > LONGEST {
            let message = format!("seconds must be at most {}", LONGEST.as_secs());
            return Err(Error::field("invalid_seconds", "seconds", message));
        }
        let (application, all) = (self.application_id, self.all.unwrap_or(false));
        Ok(CaptureSettings { records, lasts, application, all })
    }
}

/// Capture a provider's sends
///
/// From now on, sends that fail are recorded, on every route: what the provider was given, each request without the
/// credential, each answer, and what became of it. It ends after `records` or `seconds`, or when 8 MiB are kept, and counts
/// on the memory of the tenant. Meanwhile a send is divided into calls of at most 10 targets. Records of a capture before
/// are dropped; these are kept for a day, in the memory of the server that was asked.
#[utoipa::path(
    put, path = "/v1/providers/{name}/capture", operation_id = "put_provider_capture", tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    request_body = CaptureRequest,
    responses((status = 200, description = "It is active.", body = ProviderCapture), Missing, Read, Guarded)
)]
pub(super) async fn put(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(name): PathSegments<String>,
    audit: Auditor,
    request: Request,
) -> Result<Response, V1Error> {
    let body = JsonBody::receive(request, api.body_limits.with_size(REQUEST_SIZE)).await?;
    let settings = body.read(CaptureRequest::settings).await?;
    let state = api.gateway.start_capture(&tenant, &name, settings).await?;
    let state = ProviderCapture::from(state);
    audit.record(&api, (&tenant, "provider.capture", &name), until(None, Some(&state.until))).await;
    Ok(response::json(StatusCode::OK, &state))
}

/// Read what was captured
#[utoipa::path(
    get, path = "/v1/providers/{name}/capture", operation_id = "get_provider_capture", tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    responses((status = 200, description = "The capture, and its records.", body = ProviderCapture), Missing, Guarded)
)]
pub(super) async fn get(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(name): PathSegments<String>,
) -> Result<Response, V1Error> {
    let state = api.gateway.capture(&tenant, &name)?;
    Ok(response::json(StatusCode::OK, &ProviderCapture::from(state)))
}

/// Stop a capture
///
/// Its records are dropped.
#[utoipa::path(
    delete, path = "/v1/providers/{name}/capture", operation_id = "delete_provider_capture", tag = "Providers",
    params(("name" = String, Path, example = "apns")),
    responses((status = 204, description = "Nothing is captured."), Missing, Guarded)
)]
pub(super) async fn delete(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(name): PathSegments<String>,
    audit: Auditor,
) -> Result<StatusCode, V1Error> {
    let ended = ProviderCapture::from(api.gateway.stop_capture(&tenant, &name)?).until;
    audit.record(&api, (&tenant, "provider.capture", &name), until(Some(&ended), None)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// What the audit log says of a capture that began or was ended.
fn until(from: Option<&str>, to: Option<&str>) -> Map<String, Value> {
    Map::from_iter([("until".to_owned(), json!({ "from": from, "to": to }))])
}

impl From<CapturedCall> for CallRecord {
    fn from(CapturedCall { recipients, context }: CapturedCall) -> Self {
        Self {
            targets: recipients.iter().map(recipient_json).collect(),
            now: context.now,
            entropy: STANDARD.encode(context.entropy),
        }
    }
}

impl From<CapturedExchange> for ExchangeRecord {
    fn from(captured: CapturedExchange) -> Self {
        let CapturedExchange { targets, method, url, path, headers, body, credential, answer, outcomes } =
            captured;
        let (outcomes, failure) = match outcomes.transpose() {
            Ok(outcomes) => (outcomes, None),
            Err(why) => (None, Some(why)),
        };
        Self {
            targets: targets.iter().map(target_json).collect(),
            method,
            url,
            path,
            headers,
            body: BodyRecord::from(body),
            credential,
            answer: answer.map(AnswerRecord::from),
            outcomes: outcomes.map(|outcomes| outcomes.into_iter().map(OutcomeRecord::from).collect()),
            failure,
        }
    }
}

impl From<CapturedAnswer> for AnswerRecord {
    fn from(CapturedAnswer { status, headers, body, now }: CapturedAnswer) -> Self {
        Self { status, headers: headers.into_iter().collect(), body: BodyRecord::from(body), now }
    }
}

impl From<axum::body::Bytes> for BodyRecord {
    fn from(body: axum::body::Bytes) -> Self {
        match String::from_utf8(body.into()) {
            Ok(text) => Self { body: Some(text), body_base64: None },
            Err(bytes) => Self { body: None, body_base64: Some(STANDARD.encode(bytes.as_bytes())) },
        }
    }
}

impl From<Outcome> for OutcomeRecord {
    fn from(outcome: Outcome) -> Self {
        let result = DeliveryResult::Settled(outcome.clone());
        let Outcome { id, code, message, .. } = outcome;
        Self { status: result.status(), id, code, message }
    }
}
