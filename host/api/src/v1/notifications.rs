//! `POST /v1/notifications`: one notification for many targets, or many different ones.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::FutureExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::capture::{self, CaptureRecord, ExchangeRecord};
use super::respond_async::{self, AcceptedDelivery, prefers_async};
use super::send_body::{SendBody, SendContent, SendLimits, SendRequest};
use super::targets::{Summary, TargetResult};
use crate::Api;
use crate::access_log::{RequestLog, SendRecord};
use crate::caller::ByPermission;
use crate::idempotency::MayHaveBeenDelivered;
use crate::in_flight::{InFlightPermit, detached};
use crate::json::JsonBody;
use crate::openapi::schemas::{Guarded, Handed, Missing, Once, Read};
use crate::response;
use pushlet_gateway::tenants::Permission;
use pushlet_gateway::{DeliveryResult, Fields, IndexedResult, Send, SendReport, Via};
use pushlet_model::error::Error;
use pushlet_model::tenant::TenantId;

/// The result of every target, in the request's order.
#[derive(Serialize, ToSchema)]
struct SendResults {
    summary: Summary,
    results: Vec<TargetResult>,
    /// What would go, if the request said `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    requests: Option<Vec<ExchangeRecord>>,
    /// What was done, if the request said `capture`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    record: Option<CaptureRecord>,
}

/// What is returned to the caller beside the results.
struct Shown {
    requests: Option<Vec<ExchangeRecord>>,
    record: Option<CaptureRecord>,
    /// Something may have been delivered.
    arrived: bool,
}

/// Send to many targets
///
/// Each target has one result. A target that fails does not affect the others, and the status is 200. A target that is
/// repeated with the same notification is sent once: the result of the second one is `duplicate`, and `duplicate_of`
/// is the index of the first.
///
/// With `Prefer: respond-async`, a fleet accepts the targets and answers 202 once they are stored; `Location` names the
/// delivery.
#[utoipa::path(
    post, path = "/v1/notifications", operation_id = "send_notifications", tag = "Notifications",
    params(
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "A repeat with the same key within a day gets the first response, and is not sent."),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: do not wait for the results."),
    ),
    request_body = SendBody,
    responses(
        (status = 200, description = "The result of each target.", body = SendResults),
        (status = 202, description = "Accepted (`Prefer: respond-async`).", body = AcceptedDelivery,
            headers(("Location" = String, description = "The path of the delivery."))),
        Missing, Read, Once, Handed, Guarded
    )
)]
pub(super) fn send(
    State(api): State<Api>,
    ByPermission(permission): ByPermission,
    permit: InFlightPermit,
    log: RequestLog,
    request: Request,
) -> impl Future<Output = Response> {
    let (state, owner, size) = (api.clone(), permission.tenant().id.clone(), api.limits.notifications_body);
    let perform = |request| {
        send_all(api, permission, (permit, log), request)
            .map(|sent| sent.unwrap_or_else(response::error_with_field))
    };
    state.idempotency.once(&owner, (request, size), perform)
}

async fn send_all(
    api: Api,
    permission: Permission,
    (permit, log): (InFlightPermit, RequestLog),
    request: Request,
) -> Result<Response, Error> {
    let body_limits = api.body_limits.with_size(api.limits.notifications_body);
    let limits = SendLimits::of(&api.limits);
    let queued = prefers_async(request.headers());
    let body = JsonBody::receive(request, body_limits).await?;
    // Boxed: while the pushes are under way, nothing of it is left.
    let request = Box::pin(body.read(move |body: SendBody| SendRequest::new(body, &limits))).await?;
    if queued {
        return respond_async::accept(api, permission, (permit, log), request).await;
    }
    respond_async::ensure_now(request.content.shared())?;
    let tenant = permission.tenant().id.clone();
    let (results, Shown { requests, record, arrived }) =
        detached(permit, perform(api, tenant, log, request)).await?;
    let mut summary = Summary::default();
    results.iter().for_each(|result| summary.count(result.status));
    let mut response = response::json(StatusCode::OK, &SendResults { summary, results, requests, record });
    if arrived {
        response.extensions_mut().insert(MayHaveBeenDelivered);
    }
    Ok(response)
}

/// Returns the results, and what else the caller asked for.
async fn perform(
    api: Api,
    tenant: TenantId,
    log: RequestLog,
    request: SendRequest,
) -> Result<(Vec<TargetResult>, Shown), Error> {
    let SendRequest { content, invalid, places, explain, capture } = request;
    let failed = |(at, error)| IndexedResult::untried(at, DeliveryResult::Failed(error));
    let invalid: Vec<IndexedResult> = invalid.into_iter().map(failed).collect();
    let application = content.shared().application_id.clone();
    let content = content.with_request_id(log.head().id());
    let report = send_content(&api, &tenant, content, &invalid, explain || capture).await;
    let mut record = SendRecord::of(application, &report);
    invalid.iter().for_each(|result| record.tally.count(result));
    log.sent(record);
    let SendReport { targets, results, captured, .. } = report?;
    let (requests, record) = capture::shown(captured, explain, capture);
    let arrived = results.iter().any(|result| result.result.may_have_been_delivered());
    let shown = Shown { requests, record, arrived };
    let results = results.into_iter().zip(targets.iter());
    let mut results: Vec<TargetResult> =
        results.map(|(result, target)| TargetResult::new(result).with_target(&target.target)).collect();
    if !invalid.is_empty() {
        results.extend(invalid.into_iter().map(TargetResult::new));
        results.sort_by_key(|result| result.index);
    }
    for result in &mut results {
        // The gateway does not know under which name the target stands in the request.
        if result.field.as_deref() == Some("target") {
            result.field = Some(places.field(result.index));
        }
    }
    Ok((results, shown))
}

async fn send_content(
    api: &Api,
    tenant: &TenantId,
    content: SendContent,
    invalid: &[IndexedResult],
    capture: bool,
) -> Result<SendReport, Error> {
    match content {
        SendContent::Same(shared, targets) => {
            let send = Send {
                provider: None,
                via: Via::Application(shared.application_id),
                notification: Fields::Strict(shared.notification),
                targets,
                duplicates: shared.duplicates,
                native: false,
                validate_only: shared.validate_only,
                capture,
                request_id: shared.request_id,
                deadline: shared.deadline,
            };
            let report = api.gateway.send(tenant, send).await?;
            Ok(SendReport { results: with_request_indices(report.results, invalid), ..report })
        }
        SendContent::Different(shared, lines) => {
            let stream = api.gateway.stream(tenant, shared).await?;
            let provider = stream.provider().to_owned();
            let targets = lines.iter().map(|line| line.target.clone()).collect();
            let (mut results, _) = stream.send_all(lines).await;
            results.sort_by_key(|result| result.index);
            Ok(SendReport { provider, targets, results, native: None, captured: None })
        }
    }
}

/// Changes the indices of the results, which count the valid targets, to those of the request, which counts the invalid
/// ones too.
fn with_request_indices(mut results: Vec<IndexedResult>, invalid: &[IndexedResult]) -> Vec<IndexedResult> {
    if invalid.is_empty() {
        return results;
    }
    let mut invalid = invalid.iter().map(|result| result.index).peekable();
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
