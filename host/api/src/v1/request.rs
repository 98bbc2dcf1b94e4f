//! The body of `POST /v1/notifications`, read: what is sent to whom, and which targets are wrong.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::notifications::ITEM_FIELDS;
use super::object::Object;
use super::target;
use pushlet_gateway::{Line, Shared, Targets};
use pushlet_model::contract::Target;
use pushlet_model::error::{Error, Kind};
use pushlet_settings::LimitsConfig;

pub(super) struct SendRequest {
    pub job: Job,
    /// Targets that are none, by their index in the request, in order.
    pub wrong: Vec<(usize, Error)>,
    pub places: Places,
}

/// What is to be sent.
pub(super) enum Job {
    /// One notification for all targets.
    Same(Shared, Vec<Target>),
    /// Each target's own, over what they share.
    Different(Shared, Vec<Line>),
}

/// Where the targets stand in the request.
pub(super) enum Places {
    Single,
    List,
    /// The item of each target, and the place in its list if it has one.
    Items(Vec<(usize, Option<usize>)>),
}

impl Places {
    /// The name of the field of the target with this index.
    pub fn of(&self, index: usize) -> String {
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

/// The targets of the request or of one item, as they are written.
struct Given {
    targets: Vec<Value>,
    is_list: bool,
}

impl SendRequest {
    pub fn parse(mut body: Object, most: &Most) -> Result<Self, Error> {
        let notification = body.object("notification")?;
        let targets = given(&mut body, "", most.targets)?;
        let notifications = body.list("notifications")?;
        match (notification, targets, notifications) {
            (Some(notification), Some(targets), None) => Self::same(notification, targets, &mut body),
            (notification, None, Some(items)) => {
                Self::different(notification.unwrap_or_default(), items, &mut body, most)
            }
            (None, Some(_), None) => {
                Err(Error::field("missing_notification", "notification", "there is no notification"))
            }
            (_, Some(_), Some(_)) => {
                let message = "targets of different notifications belong into notifications";
                Err(Error::field("invalid_targets", "targets", message))
            }
            (_, None, None) => Err(Error::field("missing_targets", "targets", "there is no target")),
        }
    }

    fn same(notification: Map<String, Value>, given: Given, body: &mut Object) -> Result<Self, Error> {
        at_least_one(given.targets.len())?;
        let shared = shared(notification, body)?;
        let places = if given.is_list { Places::List } else { Places::Single };
        let mut targets = Vec::with_capacity(given.targets.len());
        let mut wrong = Vec::new();
        for (index, value) in given.targets.into_iter().enumerate() {
            match target::parse(value, || places.of(index)) {
                Ok(target) => targets.push(target),
                Err(error) => wrong.push((index, error)),
            }
        }
        Ok(Self { job: Job::Same(shared, targets), wrong, places })
    }

    fn different(
        notification: Map<String, Value>,
        items: Vec<Value>,
        body: &mut Object,
        most: &Most,
    ) -> Result<Self, Error> {
        let count = count(&items, most.targets)?;
        let mut shared = shared(notification, body)?;
        let mut places = Vec::with_capacity(count);
        let mut lines = Vec::with_capacity(count);
        let mut wrong = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            let place = format!("notifications[{number}]");
            let mut item = Object::of(item, &place, ITEM_FIELDS)?;
            let notification = item.object("notification")?.map(Arc::new);
            let size = notification.as_deref().map_or(0, size);
            let given = given(&mut item, &format!("{place}."), count)?.ok_or_else(|| {
                Error::field("missing_target", format!("{place}.target"), "there is no target")
            })?;
            for (place, value) in given.targets.into_iter().enumerate() {
                let index = places.len();
                places.push((number, given.is_list.then_some(place)));
                let field = || match given.is_list {
                    true => format!("notifications[{number}].targets[{place}]"),
                    false => format!("notifications[{number}].target"),
                };
                match target::parse(value, field) {
                    Ok(target) => {
                        let notification = notification.clone();
                        lines.push(Line { index, target, notification, size, held: None });
                    }
                    Err(error) => wrong.push((index, error)),
                }
            }
        }
        most.copies(shared.size, &lines)?;
        at_least_one(places.len())?;
        shared.targets = Targets::Counted(lines.len());
        Ok(Self { job: Job::Different(shared, lines), wrong, places: Places::Items(places) })
    }
}

fn shared(notification: Map<String, Value>, body: &mut Object) -> Result<Shared, Error> {
    Ok(Shared {
        application_id: body.needed_text("application_id")?,
        size: size(&notification),
        notification,
        validate_only: body.switch("validate_only")?,
        deadline: body.seconds("deadline")?,
        duplicates: body.duplicates()?,
        targets: Targets::Counted(0),
    })
}

/// `target`, or the list `targets`.
fn given(object: &mut Object, place: &str, most: usize) -> Result<Option<Given>, Error> {
    match (object.value("target"), object.list("targets")?) {
        (None, None) => Ok(None),
        (Some(target), None) => Ok(Some(Given { targets: vec![target], is_list: false })),
        (None, Some(targets)) => {
            at_most(targets.len(), most)?;
            Ok(Some(Given { targets, is_list: true }))
        }
        (Some(_), Some(_)) => {
            let message = "give target or targets, not both";
            Err(Error::field("invalid_target", format!("{place}target"), message))
        }
    }
}

/// The number of targets of all items, before anything is made of them. What is wrong with one is told later.
fn count(items: &[Value], most: usize) -> Result<usize, Error> {
    let targets = |item: &Value| item.get("targets").and_then(Value::as_array).map_or(1, Vec::len);
    let count = items.iter().map(targets).sum();
    at_most(count, most).map(|()| count)
}

fn at_least_one(targets: usize) -> Result<(), Error> {
    if targets > 0 {
        return Ok(());
    }
    Err(Error::field("missing_targets", "targets", "there is no target"))
}

fn at_most(targets: usize, most: usize) -> Result<(), Error> {
    if targets <= most {
        return Ok(());
    }
    let message = format!("there are {targets} targets, more than {most}; use /v1/notifications:stream");
    Err(Error::field("too_many_targets", "targets", message))
}

/// Bytes that the texts of a notification take, with some for each value.
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

/// What one request may ask for.
pub(super) struct Most {
    targets: usize,
    /// Bytes that all notifications may take together, each written out.
    copies: usize,
}

impl Most {
    pub fn of(limits: &LimitsConfig) -> Self {
        Self { targets: limits.targets, copies: limits.notifications_body.saturating_mul(8) }
    }

    /// A target with a notification of its own takes a copy of all that it shares, one target after the other.
    fn copies(&self, shared: usize, lines: &[Line]) -> Result<(), Error> {
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
