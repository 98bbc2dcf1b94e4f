//! `POST /v1/notifications`: one notification for many targets, or many different ones.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::super::admission::Place;
use super::super::auth::ByTenant;
use super::super::idempotency::MayHaveBeenDelivered;
use super::super::openapi::{self, Guarded, Missing, Once, Read};
use super::super::{Api, detached, response};
use super::json;
use super::object::Object;
use super::request::{Job, Most, SendRequest};
use super::result::{Summary, TargetResult};
use pushlet_gateway::{DeliveryResult, Duplicates, Fate, Fields, Line, Send, Stream, Via};
use pushlet_model::contract::Target;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

pub(super) const FIELDS: &[&str] = &[
    "application_id",
    "notification",
    "target",
    "targets",
    "notifications",
    "validate_only",
    "deadline",
    "duplicates",
];
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
    /// What becomes of a target that comes again with the same notification; `skip` by default.
    duplicates: Option<Duplicates>,
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

/// What became of every target, in the request's order.
#[derive(Serialize, ToSchema)]
#[schema(as = SendResults)]
struct Answer {
    summary: Summary,
    results: Vec<TargetResult>,
}

/// Send to many targets
///
/// One result for each target; a target that fails costs the others nothing, and the answer is 200 all the same. A
/// target that comes twice with the same notification is sent once: the second one's result is `duplicate`, and
/// `duplicate_of` is the index of the first.
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
        send_all(api, tenant, place, request).await.unwrap_or_else(response::error_with_field)
    };
    idempotency.once(&owner, request, perform).await
}

async fn send_all(api: Api, tenant: TenantId, place: Place, request: Request) -> Result<Response, Error> {
    let (body, most) = (json(request, &api, api.limits.notifications_body).await?, Most::of(&api.limits));
    let parsed = body.read(move |fields| SendRequest::parse(Object::new(fields, "", FIELDS)?, &most)).await?;
    let (results, arrived) = detached(place, perform(api, tenant, parsed)).await?;
    let mut summary = Summary::default();
    results.iter().for_each(|result| summary.count(result.status));
    let mut response = response::json(StatusCode::OK, &Answer { summary, results });
    if arrived {
        response.extensions_mut().insert(MayHaveBeenDelivered);
    }
    Ok(response)
}

/// Answers too whether something may have been delivered.
async fn perform(
    api: Api,
    tenant: TenantId,
    request: SendRequest,
) -> Result<(Vec<TargetResult>, bool), Error> {
    let SendRequest { job, wrong, places } = request;
    let (targets, results) = match job {
        Job::Same(shared, targets) => {
            let send = Send {
                provider: None,
                via: Via::Application(shared.application_id),
                notification: Fields::Strict(shared.notification),
                targets,
                duplicates: shared.duplicates,
                native: false,
                validate_only: shared.validate_only,
                deadline: shared.deadline,
            };
            let report = api.gateway.send(&tenant, send).await?;
            (report.targets, counted(report.results, &wrong))
        }
        Job::Different(shared, lines) => {
            let stream = api.gateway.stream(&tenant, shared).await?;
            let targets: Vec<Target> = lines.iter().map(|line| line.target.clone()).collect();
            (targets.into(), all(stream, lines).await)
        }
    };
    let arrived = results.iter().any(|result| result.fate.may_have_been_delivered());
    let results = results.into_iter().zip(targets.iter());
    let mut results: Vec<TargetResult> =
        results.map(|(result, target)| TargetResult::new(result).of(target)).collect();
    if !wrong.is_empty() {
        let wrong =
            wrong.into_iter().map(|(index, error)| DeliveryResult::untried(index, Fate::Failed(error)));
        results.extend(wrong.map(TargetResult::new));
        results.sort_by_key(|result| result.index);
    }
    for result in &mut results {
        // The gateway does not know how the request named the target.
        if result.field.as_deref() == Some("target") {
            result.field = Some(places.of(result.index));
        }
    }
    Ok((results, arrived))
}

/// The results of the targets that are right, with the indices of the request, which counts the wrong ones too.
fn counted(mut results: Vec<DeliveryResult>, wrong: &[(usize, Error)]) -> Vec<DeliveryResult> {
    if wrong.is_empty() {
        return results;
    }
    let mut wrong = wrong.iter().map(|(index, _)| *index).peekable();
    let mut indices = Vec::with_capacity(results.len());
    let mut next = 0;
    while indices.len() < results.len() {
        match wrong.next_if_eq(&next) {
            Some(_) => {}
            None => indices.push(next),
        }
        next += 1;
    }
    for result in &mut results {
        result.index = indices[result.index];
        if let Fate::Duplicate(first) = &mut result.fate {
            *first = indices[*first];
        }
    }
    results
}

/// Sends the lines; returns their results in their order.
async fn all(stream: Stream, lines: Vec<Line>) -> Vec<DeliveryResult> {
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
                Err(error) => {
                    let result = DeliveryResult::untried(line.index, Fate::Failed(error));
                    refused.send(result).await.is_ok()
                }
            };
            if !passed {
                break;
            }
        }
    };
    let collect = async {
        let mut collected = Vec::with_capacity(count);
        while results.recv_many(&mut collected, WAITING).await > 0 {}
        collected
    };
    let ((), _, mut results) = tokio::join!(feed, stream.run(received, settled), collect);
    results.sort_by_key(|result| result.index);
    results
}
