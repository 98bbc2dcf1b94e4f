//! What the queue keeps: deliveries, their parts and outcomes, as JSON.
//!
//! Each record has the version of the program's records. A node leaves alone what a newer one wrote.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::flow_control::Stop;
use crate::result::{DeliveryResult, IndexedResult, Status};
use crate::tenants::Withdrawal;
use pushlet_model::contract::{Disposition, Outcome, Recipient, Target};
use pushlet_model::error::{Error, Kind};

/// The version of the records that this program writes.
const VERSION: u32 = 1;
/// Bytes of the results of a part; NATS takes a megabyte.
const LARGEST_OUTCOME: usize = 768 << 10;
/// Bytes of a push service's id and code in results that would be too large, where no message has room.
const SHORT: usize = 128;
/// Bytes of a new token there.
const LONGEST_TOKEN: usize = 2 << 10;

/// Why a record cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// A newer program wrote it.
    Newer,
    Invalid,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    record: &'a T,
}

/// Writes a record.
pub(super) fn written(record: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let text = serde_json::to_vec(&Versioned { v: VERSION, record });
    text.map(Zeroizing::new).map_err(Error::internal)
}

pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, RecordError> {
    let Version { v } = serde_json::from_slice(text).map_err(|_| RecordError::Invalid)?;
    if v > VERSION {
        return Err(RecordError::Newer);
    }
    serde_json::from_slice(text).map_err(|_| RecordError::Invalid)
}

/// A delivery as a whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeliveryRecord {
    pub state: DeliveryState,
    pub application: String,
    /// What all targets share: JSON, as text, so that it is read as the caller's was.
    pub notification: String,
    pub validate_only: bool,
    /// Milliseconds for each target.
    pub deadline: Option<u64>,
    pub targets: usize,
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    /// When it may be begun, if that is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// When what is not sent by then is given up.
    pub expires: u64,
    /// The id of the API key that it came with.
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DeliveryState {
    Accepted,
    /// The caller was told that it is not accepted.
    Refused,
    Cancelled,
}

/// A part of a delivery: consecutive targets.
#[derive(Serialize, Deserialize)]
pub(super) struct PartRecord {
    /// The index of the first target; the others follow.
    pub first: usize,
    /// What the randomness of each target's request is made of, in hex: a repeat is the same request.
    pub seed: String,
    pub items: Vec<PartItem>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum PartItem {
    #[serde(rename = "t")]
    Target(PartTarget),
    /// It is not sent: its result is known.
    #[serde(rename = "r")]
    Known(Box<ResultDetails>),
    /// It was taken out of the part, and is being sent. Never stored.
    #[serde(skip)]
    Sent,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PartTarget {
    #[serde(rename = "k")]
    kind: TargetKind,
    #[serde(rename = "t")]
    text: String,
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<(String, String)>,
    /// The fields of a notification of its own: JSON, as text.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub notification: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum TargetKind {
    #[serde(rename = "d")]
    Device,
    #[serde(rename = "t")]
    Topic,
    #[serde(rename = "c")]
    Condition,
    #[serde(rename = "b")]
    Channel,
    #[serde(rename = "u")]
    Url,
}

/// What became of a part: its results, or, before them, who sends it or ended while it did.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct OutcomeRecord {
    /// A text that no other try has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Vec<ResultDetails>>,
}

/// The result of one target, as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultDetails {
    #[serde(rename = "i")]
    pub index: usize,
    #[serde(rename = "s")]
    pub status: Status,
    /// The service's id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The service's reason, or ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The field that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// When the token died, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The token to use from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// The index of the target that it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<usize>,
    #[serde(rename = "a", default)]
    pub attempts: u32,
}

impl ResultDetails {
    pub fn new(result: IndexedResult) -> Self {
        let IndexedResult { index, result, attempts, .. } = result;
        let plain = Self { attempts, ..Self::plain(index, result.status()) };
        match result {
            DeliveryResult::Settled(outcome) => plain.settled(outcome),
            DeliveryResult::Failed(error) | DeliveryResult::Lost(error) => Self {
                code: Some(error.code.into_owned()),
                message: Some(error.message.into_owned()),
                field: error.field,
                retry_after: error.retry_after.map(milliseconds),
                ..plain
            },
            DeliveryResult::Valid => plain,
            DeliveryResult::Duplicate(first) => Self { duplicate_of: Some(first), ..plain },
        }
    }

    fn plain(index: usize, status: Status) -> Self {
        Self {
            index,
            status,
            id: None,
            code: None,
            message: None,
            field: None,
            retry_after: None,
            since: None,
            replacement: None,
            duplicate_of: None,
            attempts: 0,
        }
    }

    fn settled(self, outcome: Outcome) -> Self {
        let Outcome { disposition, id, code, message, .. } = outcome;
        let (mut retry_after, mut since, mut replacement) = (None, None, None);
        match disposition {
            Disposition::Unregistered(at) => since = at,
            Disposition::Replaced(token) => replacement = Some(token),
            Disposition::Throttled(throttle) => retry_after = throttle.retry_after,
            Disposition::Unavailable(wait) => retry_after = wait,
            _ => {}
        }
        Self { id, code, message, retry_after, since, replacement, ..self }
    }
}

/// Writes the results of a part. A component may say so much of each target that they have no room: then messages are
/// left out, and ids and codes cut off.
pub(super) fn written_results(results: Vec<ResultDetails>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut outcome = OutcomeRecord { begun: None, results: Some(results) };
    let text = written(&outcome)?;
    if text.len() <= LARGEST_OUTCOME {
        return Ok(text);
    }
    for result in outcome.results.iter_mut().flatten() {
        result.message = None;
        result.replacement = result.replacement.take().filter(|token| token.len() <= LONGEST_TOKEN);
        for text in [&mut result.id, &mut result.code].into_iter().flatten() {
            text.truncate(text.floor_char_boundary(SHORT));
        }
    }
    written(&outcome)
}

impl PartTarget {
    pub fn new(recipient: Recipient, notification: Option<String>) -> Self {
        let (kind, text) = match recipient.target {
            Target::Device(text) => (TargetKind::Device, text),
            Target::Topic(text) => (TargetKind::Topic, text),
            Target::Condition(text) => (TargetKind::Condition, text),
            Target::Channel(text) => (TargetKind::Channel, text),
            Target::Url(text) => (TargetKind::Url, text),
        };
        Self { kind, text, options: recipient.options, notification }
    }

    pub fn recipient(self) -> Recipient {
        let target = match self.kind {
            TargetKind::Device => Target::Device(self.text),
            TargetKind::Topic => Target::Topic(self.text),
            TargetKind::Condition => Target::Condition(self.text),
            TargetKind::Channel => Target::Channel(self.text),
            TargetKind::Url => Target::Url(self.text),
        };
        Recipient { target, options: self.options }
    }

    /// Returns about how many bytes it takes in a part.
    pub fn size(&self) -> usize {
        let options = self.options.iter().map(|(name, value)| name.len() + value.len() + 8);
        self.text.len() + options.sum::<usize>() + self.notification.as_ref().map_or(0, String::len) + 32
    }
}

/// Reads the fields of a notification.
pub(super) fn fields(text: &str) -> Result<Map<String, Value>, RecordError> {
    match pushlet_json::from_slice(text.as_bytes()) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(RecordError::Invalid),
    }
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Newer => {
                let message = "a newer server of this fleet wrote this delivery; ask that one";
                Self::new(Kind::Overloaded, "delivery_newer", message)
            }
            RecordError::Invalid => Self::internal("a record of the queue cannot be read"),
        }
    }
}

pub(super) fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time that is this many milliseconds after the Unix epoch.
pub(super) fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}

/// Returns the error of a target that was not sent for a reason that is not its own.
pub(super) fn stopped(stop: Stop) -> Error {
    let (code, message) = match stop {
        Stop::Withdrawn(Withdrawal::KeyRevoked) => {
            ("key_revoked", "the API key that it came with was revoked")
        }
        Stop::Withdrawn(Withdrawal::KeyExpired) => {
            ("key_expired", "the API key that it came with has expired")
        }
        Stop::Withdrawn(Withdrawal::TenantSuspended) => ("tenant_suspended", "the tenant is suspended"),
        Stop::Withdrawn(Withdrawal::TenantDeleted) => ("tenant_deleted", "the tenant was deleted"),
        Stop::ApplicationDeleted => ("application_deleted", "the application was deleted"),
    };
    not_sent(code, message)
}

pub(super) fn cancelled() -> Error {
    not_sent("delivery_cancelled", "the delivery was cancelled before it was sent")
}

pub(super) fn expired() -> Error {
    not_sent("delivery_expired", "it waited too long (limits.async_window)")
}

fn not_sent(code: &'static str, message: &'static str) -> Error {
    Error::new(Kind::Unavailable, code, message)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
