//! `/v1/deliveries`: what became of sends that outlive their callers, see `respond_async`.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use utoipa::{IntoParams, ToSchema};

use super::audit::Auditor;
use super::extract::{PageQuery, PathSegments};
use super::feedback::cursor;
use super::lines::push_line;
use super::targets::{Summary, TargetResult};
use super::tenants::rfc3339;
use crate::Api;
use crate::caller::ByTenant;
use crate::openapi::schemas::{self, Addressed, Guarded, Missing};
use crate::response::{self, V1Error};
use pushlet_gateway::{DeliveryView, Status};
use pushlet_model::tenant::TenantId;

/// Deliveries of a page.
const LARGEST_PAGE: usize = 100;

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DeliveryState {
    /// No target has its result yet.
    Queued,
    Running,
    /// Every target has its result.
    Complete,
    /// Cancelled; targets that were in flight have no result yet.
    Cancelling,
    /// Cancelled, and every target has its result.
    Cancelled,
}

/// A delivery that outlives its caller.
#[derive(Serialize, ToSchema)]
struct Delivery {
    id: String,
    application_id: String,
    /// RFC 3339.
    created: String,
    /// Nothing is sent before. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    not_before: Option<String>,
    /// What is not sent by then is given up. RFC 3339.
    expires: String,
    targets: usize,
    cancelled: bool,
}

#[derive(Serialize, ToSchema)]
struct DeliveryProgress {
    #[serde(flatten)]
    delivery: Delivery,
    state: DeliveryState,
    /// Of the targets that have their result.
    summary: Summary,
}

#[derive(Serialize, ToSchema)]
struct Deliveries {
    /// In the order of their last change.
    deliveries: Vec<Delivery>,
    /// The `after` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// The last line of a delivery's results.
#[derive(Serialize, ToSchema)]
pub struct ResultsEnd {
    /// The `after` of the next call, which returns the results that are not here.
    #[schema(example = "1795771234567000")]
    cursor: String,
    /// There are no further results.
    complete: bool,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DeliveryPath {
    #[param(example = "0a1b2c3d4e5f60718293a4b5c6d7e8f9")]
    id: String,
}

impl Delivery {
    fn new(view: &DeliveryView) -> Self {
        Self {
            id: view.id.clone(),
            application_id: view.application.clone(),
            created: rfc3339(view.created),
            not_before: view.not_before.map(rfc3339),
            expires: rfc3339(view.expires),
            targets: view.targets,
            cancelled: view.cancelled,
        }
    }
}

impl DeliveryProgress {
    fn new(view: &DeliveryView) -> Self {
        let mut summary = Summary::default();
        for (status, count) in Status::ALL.into_iter().zip(view.counts) {
            summary.add(status, count);
        }
        let is_complete = view.done() >= view.targets;
        let state = match (view.cancelled, is_complete) {
            (true, true) => DeliveryState::Cancelled,
            (true, false) => DeliveryState::Cancelling,
            (false, true) => DeliveryState::Complete,
            (false, false) if view.done() > 0 => DeliveryState::Running,
            (false, false) => DeliveryState::Queued,
        };
        Self { delivery: Delivery::new(view), state, summary }
    }
}

/// List the deliveries
///
/// Those that outlive their callers (`Prefer: respond-async`), for twice as long as one may wait.
#[utoipa::path(
    get, path = "/v1/deliveries", operation_id = "list_deliveries", tag = "Deliveries",
    params(
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "At most 100 are returned."),
    ),
    responses((status = 200, description = "Some of them.", body = Deliveries), Addressed, Guarded)
)]
pub(super) async fn list(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    page: PageQuery,
) -> Result<Response, V1Error> {
    let after = cursor(page.after.as_deref(), "after")?.unwrap_or(0);
    let page = api.gateway.deliveries(&tenant, after, page.limit.min(LARGEST_PAGE)).await?;
    let deliveries = page.deliveries.iter().map(Delivery::new).collect();
    let next = page.next.map(|next| next.to_string());
    Ok(response::json(StatusCode::OK, &Deliveries { deliveries, next }))
}

/// Show a delivery
#[utoipa::path(
    get, path = "/v1/deliveries/{id}", operation_id = "get_delivery", tag = "Deliveries",
    params(DeliveryPath),
    responses((status = 200, description = "How far it is.", body = DeliveryProgress), Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(DeliveryPath { id }): PathSegments<DeliveryPath>,
) -> Result<Response, V1Error> {
    let view = api.gateway.delivery(&tenant, &id).await?;
    Ok(response::json(StatusCode::OK, &DeliveryProgress::new(&view)))
}

/// Cancel a delivery
///
/// Targets in flight finish; the others get the result `unavailable` with the code `delivery_cancelled`.
#[utoipa::path(
    delete, path = "/v1/deliveries/{id}", operation_id = "cancel_delivery", tag = "Deliveries",
    params(DeliveryPath),
    responses((status = 200, description = "How far it is.", body = DeliveryProgress), Missing, Guarded)
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    auditor: Auditor,
    PathSegments(DeliveryPath { id }): PathSegments<DeliveryPath>,
) -> Result<Response, V1Error> {
    let (view, cancelled) = api.gateway.cancel_delivery(&tenant, &id).await?;
    if cancelled {
        let changes = Map::from_iter([("cancelled".to_owned(), json!({"from": false, "to": true}))]);
        auditor.record(&api, (&tenant, "delivery.cancel", &id), changes).await;
    }
    Ok(response::json(StatusCode::OK, &DeliveryProgress::new(&view)))
}

/// Read the results of a delivery
///
/// Newline-delimited JSON: a `TargetResult` for each target that has its result, in the order in which they were stored,
/// and a `ResultsEnd`. With `after`, only what was stored since the call that returned this cursor. Each target has one
/// result.
#[utoipa::path(
    get, path = "/v1/deliveries/{id}/results", operation_id = "list_delivery_results", tag = "Deliveries",
    params(DeliveryPath, ("after" = Option<String>, Query, description = "A cursor.")),
    responses(
        (status = 200, description = "The results that are there.",
            content((schemas::DeliveryLines = "application/x-ndjson"))),
        Missing, Guarded
    )
)]
pub(super) async fn results(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(DeliveryPath { id }): PathSegments<DeliveryPath>,
    page: PageQuery,
) -> Result<Response, V1Error> {
    let after = cursor(page.after.as_deref(), "after")?.unwrap_or(0);
    let view = api.gateway.delivery(&tenant, &id).await?;
    // Of a delivery that is complete now, all results are found now.
    let complete = view.done() >= view.targets;
    let headers = [(CONTENT_TYPE, "application/x-ndjson")];
    let reader = ResultReader { api, tenant, id, after, complete };
    Ok((headers, Body::from_stream(chunks(reader))).into_response())
}

struct ResultReader {
    api: Api,
    tenant: TenantId,
    id: String,
    after: u64,
    complete: bool,
}

/// Returns the response's body, one part of the delivery after the other: no more is read than the caller takes. If the
/// registry fails, it breaks off.
fn chunks(reader: ResultReader) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        let mut chunk = Vec::new();
        let read = reader.api.gateway.delivery_results(&reader.tenant, &reader.id, reader.after).await;
        match read {
            Ok(Some((cursor, results))) => {
                reader.after = cursor;
                let lines = results.into_iter().map(TargetResult::from);
                lines.for_each(|line| push_line(&mut chunk, &line));
                Some((Ok(chunk.into()), Some(reader)))
            }
            Ok(None) => {
                let end = ResultsEnd { cursor: reader.after.to_string(), complete: reader.complete };
                push_line(&mut chunk, &end);
                Some((Ok(chunk.into()), None))
            }
            Err(error) => Some((Err(io::Error::other(error.to_string())), None)),
        }
    })
}
