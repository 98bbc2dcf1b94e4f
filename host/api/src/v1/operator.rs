//! For the operator: `GET /v1/backup`, a copy of the registry that is made while the server runs, and `GET /v1/nodes`, the
//! servers of a fleet.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::Map;
use tokio::io::AsyncReadExt as _;
use utoipa::ToSchema;

use super::audit::Auditor;
use super::tenants::rfc3339;
use crate::Api;
use crate::caller::Operator;
use crate::openapi::schemas::{Guarded, Operators};
use crate::response::{self, V1Error};
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// Bytes that are read at a time.
const PART: usize = 64 << 10;

/// Copy the registry
///
/// The file that takes the place of `registry.redb` in `data_dir`: all tenants, applications, components, dead tokens and
/// stored responses as they are at one moment. Secrets in it are sealed with the registry's key, which is not in it.
#[utoipa::path(
    get, path = "/v1/backup", operation_id = "backup", tag = "Operation",
    responses(
        (status = 200, description = "The file.", body = String, content_type = "application/octet-stream"),
        (status = 409, description = "`nothing_to_back_up`: this server keeps no file.", body = response::ErrorBody),
        Operators, Guarded
    )
)]
pub(super) async fn backup(State(api): State<Api>, _: Operator, audit: Auditor) -> Result<Response, V1Error> {
    let Some(file) = api.gateway.copy_registry().await? else {
        let message = "this server keeps no file: it has no data_dir, or is part of a fleet, whose registry is \
                       backed up with NATS";
        return Err(Error::new(Kind::Conflict, "nothing_to_back_up", message).into());
    };
    let length = file.metadata().map_err(Error::internal)?.len();
    audit.record(&api, (&TenantId::default_tenant(), "server.backup", ""), Map::new()).await;
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, "attachment; filename=\"registry.redb\"".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    let parts = stream::try_unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut part = Vec::with_capacity(PART);
        let count = (&mut file).take(PART as u64).read_to_end(&mut part).await?;
        Ok::<_, std::io::Error>((count > 0).then(|| (Bytes::from(part), file)))
    });
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// A server.
#[derive(Serialize, ToSchema)]
struct Node {
    /// Made anew with every start.
    id: String,
    name: String,
    /// Of its program.
    version: String,
    /// When it started, RFC 3339.
    since: String,
    /// Requests.
    in_flight: u64,
}

#[derive(Serialize, ToSchema)]
struct Nodes {
    /// In the order of their starts.
    nodes: Vec<Node>,
}

/// List the nodes
///
/// The servers of a fleet that live, as the one that is asked knows it; of a server that is alone, itself.
#[utoipa::path(
    get, path = "/v1/nodes", operation_id = "list_nodes", tag = "Operation",
    responses((status = 200, description = "The nodes.", body = Nodes), Operators, Guarded)
)]
pub(super) async fn nodes(State(api): State<Api>, _: Operator) -> Result<Response, V1Error> {
    let nodes = api.gateway.nodes().into_iter().map(|node| Node {
        id: node.id,
        name: node.name,
        version: node.version,
        since: rfc3339(node.since),
        in_flight: node.in_flight,
    });
    Ok(response::json(StatusCode::OK, &Nodes { nodes: nodes.collect() }))
}
