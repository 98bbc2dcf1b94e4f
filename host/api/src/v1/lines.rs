//! Lines of JSON, in both directions: how those of a request are read, and how those of a response are written.

use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::targets::parse_target;
use crate::body::{BodyLine, BodyLines, CutOff};
use crate::json::typed;
use crate::openapi::schemas;
use crate::verbatim::verbatim;
use pushlet_gateway::tenants::Withdrawal;
use pushlet_gateway::{Line, Stop};
use pushlet_model::error::Error;

/// How long lines are still read, and dropped, after their reader has stopped.
pub const DISCARD_TIME: Duration = Duration::from_secs(2);

/// A further line of a stream: one target.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamLine {
    #[serde(deserialize_with = "target")]
    #[schema(value_type = schemas::Target)]
    target: Value,
    /// Its fields win over those of the shared notification; null removes one.
    #[serde(default, deserialize_with = "verbatim")]
    #[schema(value_type = Option<schemas::Notification>)]
    notification: Option<Map<String, Value>>,
}

/// Why a stream ended before the caller's lines did. Lines without a result were not sent: send them again once the
/// reason is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// This server is stopping.
    ShuttingDown,
    /// The request's body broke off.
    CutOff,
    /// No line came for too long, or one that had begun did not end.
    Idle,
    /// The API key that opened the stream was revoked.
    KeyRevoked,
    /// The API key that opened the stream expired.
    KeyExpired,
    TenantSuspended,
    TenantDeleted,
    /// The application that the stream sends for was deleted.
    ApplicationDeleted,
}

impl Interruption {
    /// Returns the name that is written in answers and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::CutOff => "cut_off",
            Self::Idle => "idle",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantDeleted => "tenant_deleted",
            Self::ApplicationDeleted => "application_deleted",
        }
    }
}

impl From<Stop> for Interruption {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Withdrawn(Withdrawal::KeyRevoked) => Self::KeyRevoked,
            Stop::Withdrawn(Withdrawal::KeyExpired) => Self::KeyExpired,
            Stop::Withdrawn(Withdrawal::TenantSuspended) => Self::TenantSuspended,
            Stop::Withdrawn(Withdrawal::TenantDeleted) => Self::TenantDeleted,
            Stop::ApplicationDeleted => Self::ApplicationDeleted,
        }
    }
}

/// Reads the next line. It may begin late, but must end soon after it has begun.
pub async fn next_line(
    lines: &mut BodyLines,
    idle: Duration,
    line: Duration,
) -> Result<Option<BodyLine>, Interruption> {
    let cut_off = |CutOff| Interruption::CutOff;
    timeout(idle, lines.begun()).await.map_err(|_| Interruption::Idle)?.map_err(cut_off)?;
    timeout(line, lines.next()).await.map_err(|_| Interruption::Idle)?.map_err(cut_off)
}

pub fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

pub fn parse(index: usize, text: &[u8]) -> Result<Line, Error> {
    let StreamLine { target, notification } = typed(text, "it")?;
    let target = parse_target(target, || "target".to_owned())?;
    Ok(Line { index, target, notification: notification.map(Arc::new), size: text.len(), held: None })
}

/// Reads a target; null counts as missing.
fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Option::<Value>::deserialize(deserializer)?.ok_or_else(|| D::Error::missing_field(""))
}

pub fn push_line(chunk: &mut Vec<u8>, line: &impl Serialize) {
    // A struct of texts and numbers can always be written into memory.
    if serde_json::to_writer(&mut *chunk, line).is_ok() {
        chunk.push(b'\n');
    }
}
