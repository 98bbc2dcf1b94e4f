//! The body of `POST /v1/notifications`: what is sent to whom, and which targets are wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::targets::parse_target;
use crate::json::{JsonObject, optional, required_text, seconds, utc_time};
use crate::openapi::schemas;
use crate::verbatim::verbatim;
use pushlet_gateway::{Duplicates, Line, Shared, Targets};
use pushlet_model::contract::Recipient;
use pushlet_model::error::{Error, Kind};
use pushlet_settings::LimitsConfig;

/// One notification for some targets, or many different ones.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Send)]
pub struct SendBody {
    #[serde(deserialize_with = "required_text")]
    #[schema(min_length = 1)]
    application_id: String,
    /// For all targets. With `notifications`: the fields that they share.
    #[serde(default, deserialize_with = "verbatim")]
    #[schema(value_type = Option<schemas::Notification>)]
    notification: Option<Map<String, Value>>,
    #[schema(value_type = Option<schemas::Target>)]
    target: Option<Value>,
    /// Many at once; `/v1/notifications:stream` has no limit.
    #[schema(min_items = 1, value_type = Option<Vec<schemas::Target>>)]
    targets: Option<Vec<Value>>,
    /// Instead of `target` and `targets`.
    #[schema(min_items = 1, value_type = Option<Vec<SendItem>>)]
    notifications: Option<Vec<JsonObject<SendItem>>>,
    /// Check everything, and send nothing.
    validate_only: Option<bool>,
    /// With `validate_only`: return the `requests` that would go, without the credential. For one notification to at
    /// most 10 targets.
    explain: Option<bool>,
    /// Return a `record` of what the provider was given, what was sent and what was answered, without the credential.
    /// For one notification to at most 10 targets.
    capture: Option<bool>,
    /// Seconds for the whole send; at most the server's own limit.
    #[serde(default, deserialize_with = "seconds")]
    #[schema(exclusive_minimum = 0.0, value_type = Option<f64>)]
    deadline: Option<Duration>,
    /// With `Prefer: respond-async`: send nothing before this time. RFC 3339 with `Z`; at most `limits.async_window` ahead.
    #[serde(default, deserialize_with = "utc_time")]
    #[schema(value_type = Option<String>)]
    not_before: Option<SystemTime>,
    /// What happens to a target that is repeated with the same notification; `skip` by default.
    #[serde(default, deserialize_with = "duplicates")]
    duplicates: Option<Duplicates>,
}

/// A notification of its own for some targets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SendItem {
    /// Its fields win over those of the shared notification; null removes one.
    #[serde(default, deserialize_with = "verbatim")]
    #[schema(value_type = Option<schemas::Notification>)]
    notification: Option<Map<String, Value>>,
    #[schema(value_type = Option<schemas::Target>)]
    target: Option<Value>,
    #[schema(min_items = 1, value_type = Option<Vec<schemas::Target>>)]
    targets: Option<Vec<Value>>,
}

/// Reads `skip` or `send`. For `deserialize_with`.
pub fn duplicates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duplicates>, D::Error> {
    optional(deserializer, "skip or send", |value| match value.as_str() {
        Some("skip") => Some(Duplicates::Skip),
        Some("send") => Some(Duplicates::Send),
        _ => None,
    })
}

/// Requests are explained where none is sent.
pub fn ensure_explains(explain: bool, validate_only: Option<bool>) -> Result<(), Error> {
    match explain && validate_only != Some(true) {
        true => Err(Error::field("invalid_explain", "explain", "explain is for validate_only")),
        false => Ok(()),
    }
}

/// A body whose targets are parsed.
pub struct SendRequest {
    pub content: SendContent,
    /// The invalid targets, by their index in the request, in order.
    pub invalid: Vec<(usize, Error)>,
    pub places: TargetPlaces,
    /// The caller wants to see the requests.
    pub explain: bool,
    /// The caller wants a record of the send.
    pub capture: bool,
}

/// What is to be sent.
pub enum SendContent {
    /// One notification for all targets.
    Same(Shared, Vec<Recipient>),
    /// Each target's own, over the fields that they share.
    Different(Shared, Vec<Line>),
}

impl SendContent {
    pub fn shared(&self) -> &Shared {
        let (Self::Same(shared, _) | Self::Different(shared, _)) = self;
        shared
    }

    /// Names the HTTP request that it is of.
    pub fn with_request_id(mut self, id: &str) -> Self {
        let (Self::Same(shared, _) | Self::Different(shared, _)) = &mut self;
        shared.request_id = Some(id.into());
        self
    }
}

/// Where the targets stand in the request.
pub enum TargetPlaces {
    Single,
    List,
    /// The item of each target, and the place in its list if it has one.
    Items(Vec<(usize, Option<usize>)>),
}

impl TargetPlaces {
    /// Returns the name of the field of the target with this index.
    pub fn field(&self, index: usize) -> String {
        match self {
            Self::Single => "target".to_owned(),
            Self::List => format!("targets[{index}]"),
            Self::Items(items) => match items.get(index) {
                Some((item, Some(place))) => format!("notifications[{item}].targets[{place}]"),
                Some((item, None)) => format!("notifications[{item}].target"),
                None => "notifications".to_owned(),
            },
        }
    }
}

/// The targets of the request or of one item.
struct GivenTargets {
    targets: Vec<Value>,
    is_list: bool,
}

impl SendRequest {
    pub fn new(body: SendBody, limits: &SendLimits) -> Result<Self, Error> {
        let given = given(body.target, body.targets, "", limits.targets)?;
        let (explain, capture) = (body.explain.unwrap_or(false), body.capture.unwrap_or(false));
        ensure_explains(explain, body.validate_only)?;
        for (name, _) in [("explain", explain), ("capture", capture)].iter().filter(|(_, wanted)| *wanted) {
            let count = given.as_ref().map(|given| given.targets.len());
            ensure_small(name, count.filter(|_| body.notifications.is_none()))?;
        }
        let shared = |notification: Map<String, Value>| Shared {
            application_id: body.application_id,
            size: size(&notification),
            notification,
            validate_only: body.validate_only.unwrap_or(false),
            deadline: body.deadline,
            duplicates: body.duplicates.unwrap_or_default(),
            targets: Targets::Counted(0),
            not_before: body.not_before,
            capture: false,
            request_id: None,
        };
        match (body.notification, given, body.notifications) {
            (Some(notification), Some(given), None) => {
                Ok(Self { explain, capture, ..Self::same(shared(notification), given)? })
            }
            (notification, None, Some(items)) => {
                Self::different(shared(notification.unwrap_or_default()), items, limits)
            }
            (None, Some(_), None) => {
                Err(Error::field("missing_notification", "notification", "there is no notification"))
            }
            (_, Some(_), Some(_)) => {
                let message = "targets cannot be combined with notifications; give each entry its own target";
                Err(Error::field("invalid_targets", "targets", message))
            }
            (_, None, None) => Err(no_targets()),
        }
    }

    fn same(shared: Shared, given: GivenTargets) -> Result<Self, Error> {
        if given.targets.is_empty() {
            return Err(no_targets());
        }
        let places = if given.is_list { TargetPlaces::List } else { TargetPlaces::Single };
        let mut targets = Vec::with_capacity(given.targets.len());
        let mut invalid = Vec::new();
        for (index, value) in given.targets.into_iter().enumerate() {
            match parse_target(value, || places.field(index)) {
                Ok(target) => targets.push(target),
                Err(error) => invalid.push((index, error)),
            }
        }
        Ok(Self {
            content: SendContent::Same(shared, targets),
            invalid,
            places,
            explain: false,
            capture: false,
        })
    }

    fn different(
        mut shared: Shared,
        items: Vec<JsonObject<SendItem>>,
        limits: &SendLimits,
    ) -> Result<Self, Error> {
        let targets = |JsonObject(item): &JsonObject<SendItem>| item.targets.as_ref().map_or(1, Vec::len);
        let count = items.iter().map(targets).sum();
        // Before anything is built, so that a body of tiny targets does not cost a multiple of its size.
        at_most(count, limits.targets)?;
        let mut places = Vec::with_capacity(count);
        let mut lines = Vec::with_capacity(count);
        let mut invalid = Vec::new();
        for (number, JsonObject(item)) in items.into_iter().enumerate() {
            // One copy for all targets of the item.
            let notification = item.notification.map(Arc::new);
            let size = notification.as_deref().map_or(0, size);
            let place = format!("notifications[{number}].");
            let given = given(item.target, item.targets, &place, count)?.ok_or_else(|| {
                Error::field("missing_target", format!("{place}target"), "there is no target")
            })?;
            for (position, value) in given.targets.into_iter().enumerate() {
                let index = places.len();
                places.push((number, given.is_list.then_some(position)));
                let field = || match given.is_list {
                    true => format!("{place}targets[{position}]"),
                    false => format!("{place}target"),
                };
                match parse_target(value, field) {
                    Ok(target) => {
                        let notification = notification.clone();
                        lines.push(Line { index, target, notification, size, held: None });
                    }
                    Err(error) => invalid.push((index, error)),
                }
            }
        }
        limits.check_copies(shared.size, &lines)?;
        if places.is_empty() {
            return Err(no_targets());
        }
        // Invalid targets are not sent, so they do not count towards the tenant's limits.
        shared.targets = Targets::Counted(lines.len());
        Ok(Self {
            content: SendContent::Different(shared, lines),
            invalid,
            places: TargetPlaces::Items(places),
            explain: false,
            capture: false,
        })
    }
}

/// Most targets whose requests are shown: they may be far larger than what the caller sent.
const MOST_SHOWN: usize = 10;

/// `name`: the field that asks for them. `targets`: how many share one notification; None: each has its own.
fn ensure_small(name: &str, targets: Option<usize>) -> Result<(), Error> {
    let wrong =
        |what: String| Err(Error::field(format!("invalid_{name}"), name, format!("{name} is for {what}")));
    match targets {
        Some(count) if count <= MOST_SHOWN => Ok(()),
        Some(_) => wrong(format!("at most {MOST_SHOWN} targets")),
        None => wrong("one notification".to_owned()),
    }
}

/// Returns the targets of `target` or `targets`. `place`: stands before the field's name in errors.
fn given(
    target: Option<Value>,
    targets: Option<Vec<Value>>,
    place: &str,
    max: usize,
) -> Result<Option<GivenTargets>, Error> {
    match (target, targets) {
        (None, None) => Ok(None),
        (Some(target), None) => Ok(Some(GivenTargets { targets: vec![target], is_list: false })),
        (None, Some(targets)) => {
            at_most(targets.len(), max)?;
            Ok(Some(GivenTargets { targets, is_list: true }))
        }
        (Some(_), Some(_)) => {
            let message = "give target or targets, not both";
            Err(Error::field("invalid_target", format!("{place}target"), message))
        }
    }
}

fn no_targets() -> Error {
    Error::field("missing_targets", "targets", "there is no target")
}

fn at_most(targets: usize, max: usize) -> Result<(), Error> {
    if targets <= max {
        return Ok(());
    }
    let message = format!("there are {targets} targets, more than {max}; use /v1/notifications:stream");
    Err(Error::field("too_many_targets", "targets", message))
}

/// Returns about how many bytes of memory a notification takes.
fn size(notification: &Map<String, Value>) -> usize {
    let of = |(name, value): (&String, &Value)| name.len() + value_size(value);
    notification.iter().map(of).sum()
}

fn value_size(value: &Value) -> usize {
    const EACH: usize = 128;
    EACH + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_size).sum(),
        Value::Object(fields) => size(fields),
        _ => 0,
    }
}

/// What one request may contain.
pub struct SendLimits {
    targets: usize,
    /// Bytes that all notifications may take together, each written out.
    copies: usize,
}

impl SendLimits {
    pub fn of(limits: &LimitsConfig) -> Self {
        Self { targets: limits.targets, copies: limits.notifications_body.saturating_mul(8) }
    }

    /// Each target with a notification of its own gets a copy of the shared fields, so a small body may expand to a
    /// multiple of its size.
    fn check_copies(&self, shared: usize, lines: &[Line]) -> Result<(), Error> {
        let own = lines.iter().filter(|line| line.notification.is_some());
        let copies = own.fold(0_usize, |sum, line| sum.saturating_add(shared.saturating_add(line.size)));
        if copies <= self.copies {
            return Ok(());
        }
        let message = format!(
            "the notifications are too large for so many targets: written out for each they take {copies} bytes, more \
             than {}",
            self.copies
        );
        Err(Error::new(Kind::TooLarge, "notifications_too_large", message).about("notifications"))
    }
}
