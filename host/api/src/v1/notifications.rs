//! `POST /v1/notifications`: one notification for many targets, or many different ones.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::send_body::{SendBody, SendContent, SendLimits, SendRequest};
use super::targets::{Summary, TargetResult};
use crate::Api;
use crate::caller::ByTenant;
use crate::idempotency::MayHaveBeenDelivered;
use crate::in_flight::{InFlightPermit, detached};
use crate::json::JsonBody;
use crate::openapi::schemas::{Guarded, Missing, Once, Read};
use crate::response;
use pushlet_gateway::{DeliveryResult, Fields, IndexedResult, Line, Send, Stream, Via};
use pushlet_model::contract::Target;
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// Lines and results that wait between two steps.
const QUEUE_LENGTH: usize = 512;

/// The result of every target, in the request's order.
#[derive(Serialize, ToSchema)]
struct SendResults {
    summary: Summary,
    results: Vec<TargetResult>,
}

/// Send to many targets
///
/// Each target has one result. A target that fails does not affect the others, and the status is 200. A target that is
/// repeated with the same notification is sent once: the result of the second one is `duplicate`, and `duplicate_of`
/// is the index of the first.
#[utoipa::path(
    post, path = "/v1/notifications", operation_id = "send_notifications", tag = "Notifications",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "A repeat with the same key within a day gets the first response, and is not sent.")),
    request_body = SendBody,
    responses(
        (status = 200, description = "The result of each target.", body = SendResults),
        Missing, Read, Once, Guarded
    )
)]
pub(super) async fn send(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    request: Request,
) -> Response {
    let idempotency = api.idempotency.with_body_size(api.limits.notifications_body);
    let owner = tenant.clone();
    let perform = |request| async {
        send_all(api, tenant, permit, request).await.unwrap_or_else(response::error_with_field)
    };
    idempotency.once(&owner, request, perform).await
}

async fn send_all(
    api: Api,
    tenant: TenantId,
    permit: InFlightPermit,
    request: Request,
) -> Result<Response, Error> {
    let body_limits = api.body_limits.with_size(api.limits.notifications_body);
    let limits = SendLimits::of(&api.limits);
    let body = JsonBody::receive(request, body_limits).await?;
    let request = body.read(move |body: SendBody| SendRequest::new(body, &limits)).await?;
    let (results, arrived) = detached(permit, perform(api, tenant, request)).await?;
    let mut summary = Summary::default();
    results.iter().for_each(|result| summary.count(result.status));
    let mut response = response::json(StatusCode::OK, &SendResults { summary, results });
    if arrived {
        response.extensions_mut().insert(MayHaveBeenDelivered);
    }
    Ok(response)
}

/// Returns the results, and whether something may have been delivered.
async fn perform(
    api: Api,
    tenant: TenantId,
    request: SendRequest,
) -> Result<(Vec<TargetResult>, bool), Error> {
    let SendRequest { content, invalid, places } = request;
    let (targets, results) = match content {
        SendContent::Same(shared, targets) => {
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
            (report.targets, with_request_indices(report.results, &invalid))
        }
        SendContent::Different(shared, lines) => {
            let stream = api.gateway.stream(&tenant, shared).await?;
            let targets: Vec<Target> = lines.iter().map(|line| line.target.clone()).collect();
            (targets.into(), send_lines(stream, lines).await)
        }
    };
    let arrived = results.iter().any(|result| result.result.may_have_been_delivered());
    let results = results.into_iter().zip(targets.iter());
    let mut results: Vec<TargetResult> =
        results.map(|(result, target)| TargetResult::new(result).with_target(target)).collect();
    if !invalid.is_empty() {
        let failed = |(index, error)| IndexedResult::untried(index, DeliveryResult::Failed(error));
        results.extend(invalid.into_iter().map(failed).map(TargetResult::new));
        results.sort_by_key(|result| result.index);
    }
    for result in &mut results {
        // The gateway does not know under which name the target stands in the request.
        if result.field.as_deref() == Some("target") {
            result.field = Some(places.field(result.index));
        }
    }
    Ok((results, arrived))
}

/// Changes the indices of the results, which count the valid targets, to those of the request, which counts the invalid
/// ones too.
fn with_request_indices(mut results: Vec<IndexedResult>, invalid: &[(usize, Error)]) -> Vec<IndexedResult> {
    if invalid.is_empty() {
        return results;
    }
    let mut invalid = invalid.iter().map(|(index, _)| *index).peekable();
    let mut indices = Vec::with_capacity(results.len());
    let mut next = 0;
    while indices.len() < results.len() {
        if invalid.next_if_eq(&next).is_none() {
            indices.push(next);
        }
        next += 1;
    }
    for result in &mut results {
        result.index = indices[result.index];
        if let DeliveryResult::Duplicate(first) = &mut result.result {
            *first = indices[*first];
        }
    }
    results
}

/// Sends the lines, and returns their results in the order of the lines.
async fn send_lines(stream: Stream, lines: Vec<Line>) -> Vec<IndexedResult> {
    let count = lines.len();
    let (to_send, received) = mpsc::channel(QUEUE_LENGTH);
    let (settled, mut results) = mpsc::channel(QUEUE_LENGTH);
    let (gate, refused) = (stream.gate(), settled.clone());
    let feed = async move {
        for mut line in lines {
            let passed = match gate.pass(line.size, line.notification.is_some()).await {
                Ok(held) => {
                    line.held = held;
                    to_send.send(line).await.is_ok()
                }
                Err(error) => {
                    let result = IndexedResult::untried(line.index, DeliveryResult::Failed(error));
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
        while results.recv_many(&mut collected, QUEUE_LENGTH).await > 0 {}
        collected
    };
    // All three at once: the gate opens only as results are collected.
    let ((), _, mut results) = tokio::join!(feed, stream.run(received, settled), collect);
    results.sort_by_key(|result| result.index);
    results
}
