//! `POST /v1/notifications`: one notification for many targets, or many different ones.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::super::access::ByTenant;
use super::super::admission::Place;
use super::super::idempotency::MayHaveArrived;
use super::super::openapi::{self, Guarded, Missing, Once, Read};
use super::super::{Api, answer, detached};
use super::object::Object;
use super::result::{Summary, TargetResult};
use super::{json, target};
use crate::config::Limits;
use crate::contract::Target;
use crate::error::{Error, Kind};
use crate::gateway::{Fate, Fields, Line, Send, Shared, Stream, Targets, Via};
use crate::tenant::TenantId;

pub(super) const FIELDS: &[&str] =
    &["application_id", "notification", "target", "targets", "notifications", "validate_only", "deadline"];
pub(super) const ITEM_FIELDS: &[&str] = &["notification", "target", "targets"];
/// Lines and fates that wait between two steps.
const WAITING: usize = 512;

/// One notification for some targets, or many different ones.
#[derive(ToSchema)]
#[schema(as = Send)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
struct Body {
    #[schema(min_length = 1)]
    application_id: String,
    /// For all targets. Beside `notifications`: what they share.
    notification: Option<openapi::Notification>,
    target: Option<openapi::Target>,
    /// Many at once; `/v1/notifications:stream` has no limit.
    #[schema(min_items = 1)]
    targets: Option<Vec<openapi::Target>>,
    /// Instead of `target` and `targets`.
    #[schema(min_items = 1)]
    notifications: Option<Vec<Item>>,
    /// Check everything, and send nothing.
    validate_only: Option<bool>,
    /// Seconds for the whole send; at most the server's own limit.
    #[schema(exclusive_minimum = 0.0)]
    deadline: Option<f64>,
}

/// A notification of its own for some targets.
#[derive(ToSchema)]
#[schema(as = SendItem)]
#[expect(dead_code, reason = "it is read field by field, so that errors name the field")]
struct Item {
    /// Its fields win over those of the shared notification; null takes one away.
    notification: Option<openapi::Notification>,
    target: Option<openapi::Target>,
    #[schema(min_items = 1)]
    targets: Option<Vec<openapi::Target>>,
}

/// What is to be sent.
enum Job {
    /// One notification for all targets.
    Same(Shared, Vec<Target>),
    /// Each target's own, over what they share.
    Different(Shared, Vec<Line>),
}

/// What became of every target, in the request's order.
#[derive(Serialize, ToSchema)]
#[schema(as = SendResults)]
struct Answer {
    summary: Summary,
    results: Vec<TargetResult>,
}

/// Send to many targets
///
/// One result for each target; a target that fails costs the others nothing, and the answer is 200 all the same.
#[utoipa::path(
    post,
    path = "/v1/notifications",
    operation_id = "send_notifications",
    tag = "Notifications",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "A repeat with the same key within a day gets the first answer, and is not sent.")),
    request_body = Body,
    responses(
        (status = 200, description = "What became of each target.", body = Answer),
        Missing, Read, Once, Guarded
    )
)]
pub(super) async fn send(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    place: Place,
    request: Request,
) -> Response {
    let idempotency = api.idempotency.with_body(api.limits.notifications_body);
    let owner = tenant.clone();
    let perform = |request| async {
        send_all(api, tenant, place, request).await.unwrap_or_else(answer::error_with_field)
    };
    idempotency.once(&owner, request, perform).await
}

async fn send_all(api: Api, tenant: TenantId, place: Place, request: Request) -> Result<Response, Error> {
    let (body, most) = (json(request, &api, api.limits.notifications_body).await?, Most::of(&api.limits));
    let job = body.read(move |fields| job(Object::new(fields, "", FIELDS)?, &most)).await?;
    let (results, arrived) = detached(place, perform(api, tenant, job)).await?;
    let mut summary = Summary::default();
    results.iter().for_each(|result| summary.count(result.status));
    let mut response = answer::json(StatusCode::OK, &Answer { summary, results });
    if arrived {
        response.extensions_mut().insert(MayHaveArrived);
    }
    Ok(response)
}

/// Answers too whether something may have been delivered.
async fn perform(api: Api, tenant: TenantId, job: Job) -> Result<(Vec<TargetResult>, bool), Error> {
    let (targets, fates): (_, Vec<_>) = match job {
        Job::Same(shared, targets) => {
            let send = Send {
                provider: None,
                via: Via::Application(shared.application_id),
                notification: Fields::Strict(shared.notification),
                targets,
                native: false,
                validate_only: shared.validate_only,
                deadline: shared.deadline,
            };
            let report = api.backend.send(tenant, send).await?;
            (report.targets, report.fates.into_iter().enumerate().collect())
        }
        Job::Different(shared, lines) => {
            let stream = api.backend.stream(tenant, shared).await?;
            let targets: Vec<Target> = lines.iter().map(|line| line.target.clone()).collect();
            (targets, all(stream, lines).await)
        }
    };
    let arrived = fates.iter().any(|(_, fate)| answer::may_have_arrived(fate));
    let results = fates.into_iter().zip(&targets);
    let results = results.map(|((index, fate), target)| TargetResult::new(index, fate).of(target));
    Ok((results.collect(), arrived))
}

/// Sends the lines; answers their fates in their order.
async fn all(stream: Stream, lines: Vec<Line>) -> Vec<(usize, Fate)> {
    let count = lines.len();
    let (to_send, received) = mpsc::channel(WAITING);
    let (settled, mut results) = mpsc::channel(WAITING);
    let (gate, refused) = (stream.gate(), settled.clone());
    let feed = async move {
        for mut line in lines {
            let passed = match gate.pass(line.size, line.notification.is_some()).await {
                Ok(held) => {
                    line.held = held;
                    to_send.send(line).await.is_ok()
                }
                Err(error) => refused.send((line.index, Fate::Failed(error))).await.is_ok(),
            };
            if !passed {
                break;
            }
        }
    };
    let collect = async {
        let mut fates = Vec::with_capacity(count);
        while results.recv_many(&mut fates, WAITING).await > 0 {}
        fates
    };
    let ((), _, mut fates) = tokio::join!(feed, stream.run(received, settled), collect);
    fates.sort_by_key(|(index, _)| *index);
    fates
}

fn job(mut body: Object, most: &Most) -> Result<Job, Error> {
    let notification = body.object("notification")?;
    let targets = targets(&mut body, "", most.targets)?;
    let notifications = body.list("notifications")?;
    let shared = |notification: Map<String, Value>, body: &mut Object| -> Result<Shared, Error> {
        Ok(Shared {
            application_id: body.needed_text("application_id")?,
            size: size(&notification),
            notification,
            validate_only: body.switch("validate_only")?,
            deadline: body.seconds("deadline")?,
            targets: Targets::Counted(0),
        })
    };
    match (notification, targets, notifications) {
        (Some(notification), Some(targets), None) => {
            at_least_one(targets.len())?;
            Ok(Job::Same(shared(notification, &mut body)?, targets))
        }
        (notification, None, Some(items)) => {
            let count = count(&items, most.targets)?;
            let mut shared = shared(notification.unwrap_or_default(), &mut body)?;
            let lines = lines(items, count)?;
            most.copies(shared.size, &lines)?;
            at_least_one(lines.len())?;
            shared.targets = Targets::Counted(lines.len());
            Ok(Job::Different(shared, lines))
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

/// `target`, or the list `targets`.
fn targets(object: &mut Object, place: &str, most: usize) -> Result<Option<Vec<Target>>, Error> {
    match (object.value("target"), object.list("targets")?) {
        (None, None) => Ok(None),
        (Some(target), None) => Ok(Some(vec![target::parse(&target, &format!("{place}target"))?])),
        (None, Some(targets)) => {
            at_most(targets.len(), most)?;
            let targets = targets.iter().enumerate();
            let parse = |(index, value)| target::parse(value, &format!("{place}targets[{index}]"));
            targets.map(parse).collect::<Result<_, _>>().map(Some)
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

fn lines(items: Vec<Value>, count: usize) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::with_capacity(count);
    for (number, item) in items.into_iter().enumerate() {
        let place = format!("notifications[{number}]");
        let mut item = Object::of(item, &place, ITEM_FIELDS)?;
        let notification = item.object("notification")?.map(Arc::new);
        let size = notification.as_deref().map_or(0, size);
        let targets = targets(&mut item, &format!("{place}."), count)?
            .ok_or_else(|| Error::field("missing_target", format!("{place}.target"), "there is no target"))?;
        for target in targets {
            let notification = notification.clone();
            lines.push(Line { index: lines.len(), target, notification, size, held: None });
        }
    }
    Ok(lines)
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
struct Most {
    targets: usize,
    /// Bytes that all notifications may take together, each written out.
    copies: usize,
}

impl Most {
    fn of(limits: &Limits) -> Self {
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
