//! What a send did, for a caller that asked for it with `explain` or `capture`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::targets::target_json;
use crate::openapi::schemas;
use pushlet_gateway::{CapturedAnswer, CapturedCall, CapturedExchange, CapturedSend, DeliveryResult, Status};
use pushlet_model::contract::{Environment, Outcome};

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

impl CaptureRecord {
    /// `notification`: as the caller gave it.
    pub fn new(provider: String, notification: Map<String, Value>, captured: CapturedSend) -> Self {
        let CapturedSend { digest, application, calls, exchanges } = captured;
        let environment = match application.environment {
            Environment::Production => "production",
            Environment::Development => "development",
        };
        let settings = application.settings.into_iter().collect();
        Self {
            provider,
            digest,
            application: ApplicationRecord { environment, settings, credential: application.credential },
            notification,
            calls: calls.into_iter().map(CallRecord::from).collect(),
            exchanges: requests(exchanges),
        }
    }
}

/// Returns the requests of a send, with their answers if they were sent.
pub fn requests(exchanges: Vec<CapturedExchange>) -> Vec<ExchangeRecord> {
    exchanges.into_iter().map(ExchangeRecord::from).collect()
}

impl From<CapturedCall> for CallRecord {
    fn from(CapturedCall { recipients, context }: CapturedCall) -> Self {
        let targets = recipients.iter().map(|recipient| {
            let target = target_json(&recipient.target);
            if recipient.options.is_empty() {
                return target;
            }
            let mut object = match target {
                Value::Object(object) => object,
                token => Map::from_iter([("device".to_owned(), token)]),
            };
            let options = recipient
                .options
                .iter()
                .map(|(name, value)| (name.clone(), serde_json::from_str(value).unwrap_or(Value::Null)));
            object.insert("options".to_owned(), Value::Object(options.collect()));
            Value::Object(object)
        });
        Self { targets: targets.collect(), now: context.now, entropy: STANDARD.encode(context.entropy) }
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
