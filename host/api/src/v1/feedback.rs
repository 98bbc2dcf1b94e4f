//! `/v1/applications/{id}/feedback`: tokens that push services reported dead.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::{PathSegments, QueryFields};
use crate::Api;
use crate::caller::ByTenant;
use crate::classic::DeadTokenView;
use crate::openapi::schemas::{Addressed, Guarded, Missing};
use crate::response::{self, V1Error};
use pushlet_gateway::FeedbackRead;
use pushlet_model::error::Error;

/// Tokens that were reported dead, and are not dropped yet.
#[derive(Serialize, ToSchema)]
struct DeadTokens {
    dead_tokens: Vec<DeadTokenView>,
}

/// The same, from a cursor on.
#[derive(Serialize, ToSchema)]
struct DeadTokensPage {
    /// Oldest first; each token once.
    dead_tokens: Vec<DeadTokenView>,
    /// The `after` of the next call, and the `before` that drops these.
    #[schema(example = "1795771234567000")]
    cursor: String,
}

/// Reads a cursor of the query; None: it is not there.
pub(super) fn cursor(text: Option<&str>, name: &'static str) -> Result<Option<u64>, Error> {
    let text = text.filter(|text| !text.is_empty());
    text.map(str::parse).transpose().map_err(|_| {
        Error::field(format!("invalid_{name}"), name, format!("{name} must be a cursor of this list"))
    })
}

/// Show the dead tokens of an application
///
/// The list stays as it is. With `after`, only those are listed that were reported since the call that returned this
/// cursor.
#[utoipa::path(
    get, path = "/v1/applications/{id}/feedback", operation_id = "show_feedback", tag = "Applications",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("after" = Option<String>, Query, description = "A cursor."),
    ),
    responses((status = 200, description = "Dead tokens.", body = DeadTokensPage), Addressed, Missing, Guarded)
)]
pub(super) async fn show(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(id): PathSegments<String>,
    QueryFields(query): QueryFields,
) -> Result<Response, V1Error> {
    let after = cursor(query.get("after").map(String::as_str), "after")?.unwrap_or(0);
    let page = api.gateway.feedback(&tenant, &id, FeedbackRead::After(after)).await?;
    let dead_tokens = page.tokens.iter().map(DeadTokenView::of).collect();
    Ok(response::json(StatusCode::OK, &DeadTokensPage { dead_tokens, cursor: page.cursor.to_string() }))
}

/// Drop dead tokens of an application
///
/// Those that were reported up to a cursor: everything that the call that returned it has listed, and what was older.
#[utoipa::path(
    delete, path = "/v1/applications/{id}/feedback", operation_id = "drop_feedback", tag = "Applications",
    params(
        ("id" = String, Path, example = "my-apns-app"),
        ("before" = String, Query, description = "A cursor.", example = "1795771234567000"),
    ),
    responses((status = 204, description = "Dropped."), Addressed, Missing, Guarded)
)]
pub(super) async fn drop(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(id): PathSegments<String>,
    QueryFields(query): QueryFields,
) -> Result<StatusCode, V1Error> {
    let until = cursor(query.get("before").map(String::as_str), "before")?
        .ok_or_else(|| Error::field("missing_before", "before", "before is required for this call"))?;
    api.gateway.drop_feedback(&tenant, &id, until).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take the dead tokens of an application
///
/// Those that were reported since the last call: this call clears the list.
#[utoipa::path(
    post, path = "/v1/applications/{id}/feedback", operation_id = "take_feedback", tag = "Applications",
    params(("id" = String, Path, example = "my-apns-app")),
    responses((status = 200, description = "Dead tokens.", body = DeadTokens), Missing, Guarded)
)]
pub(super) async fn take(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    PathSegments(id): PathSegments<String>,
) -> Result<Response, V1Error> {
    let page = api.gateway.feedback(&tenant, &id, FeedbackRead::Take).await?;
    let dead_tokens = page.tokens.iter().map(DeadTokenView::of).collect();
    Ok(response::json(StatusCode::OK, &DeadTokens { dead_tokens }))
}
