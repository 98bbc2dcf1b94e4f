//! What the operator changes while the server runs: who may call, and `POST /v1/reload`, which reads the configuration
//! again.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, json};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use crate::Api;
use crate::caller::Operator;
use crate::openapi::schemas::{Guarded, Operators};
use crate::response::{self, V1Error};
use crate::v1::Auditor;
use pushlet_model::digest::sha256;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;
use pushlet_settings::{CallerConfig, Login, Problem};

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReloadReport {
    /// Keys of the configuration, files or tables that are in force now.
    #[schema(example = json!(["tls.cert", "log.level"]))]
    pub changed: Vec<String>,
    /// Keys that are set otherwise than when the server started, and need a restart.
    pub needs_restart: Vec<String>,
}

type ReloadAction = dyn Fn() -> BoxFuture<'static, Result<ReloadReport, Problem>> + Send + Sync;

/// The part of the API's configuration that can be replaced. Cheap to clone.
#[derive(Clone)]
pub struct LiveConfig(Arc<LiveState>);

struct LiveState {
    callers: ArcSwap<CallerDigests>,
    reload: OnceLock<Box<ReloadAction>>,
}

/// The credentials that the configuration has.
pub struct CallerDigests {
    pub login: Option<LoginDigests>,
    pub admin: Option<[u8; 32]>,
}

/// Digests have one length, so that comparing them does not reveal the length of the name or the password.
pub struct LoginDigests {
    username: [u8; 32],
    password: [u8; 32],
}

impl LiveConfig {
    pub fn new(callers: &CallerConfig) -> Self {
        let callers = ArcSwap::from_pointee(CallerDigests::of(callers));
        Self(Arc::new(LiveState { callers, reload: OnceLock::new() }))
    }

    /// Replaces the callers that are let in: requests that have begun go on.
    pub fn set_callers(&self, callers: &CallerConfig) {
        self.0.callers.store(Arc::new(CallerDigests::of(callers)));
    }

    /// Sets what `POST /v1/reload` does. Later calls have no effect.
    pub fn on_reload(
        &self,
        action: impl Fn() -> BoxFuture<'static, Result<ReloadReport, Problem>> + Send + Sync + 'static,
    ) {
        let _ = self.0.reload.set(Box::new(action));
    }

    pub(crate) fn callers(&self) -> Guard<Arc<CallerDigests>> {
        self.0.callers.load()
    }
}

/// Read the configuration again
///
/// The file, the files of secrets and certificates, and the log's level, as SIGHUP does. If something is wrong, nothing
/// changes. Requests in flight go on.
#[utoipa::path(
    post, path = "/v1/reload", operation_id = "reload", tag = "Operation",
    responses(
        (status = 200, description = "What has changed.", body = ReloadReport),
        (status = 409, description = "`invalid_configuration`: nothing has changed.", body = response::ErrorBody),
        Operators, Guarded
    )
)]
pub(super) async fn reload(State(api): State<Api>, _: Operator, audit: Auditor) -> Result<Response, V1Error> {
    // A server that is part of another program has nothing to read.
    let Some(reload) = api.live.0.reload.get() else {
        return Ok(response::json(StatusCode::OK, &ReloadReport::default()));
    };
    let wrong = |problem: Problem| Error::new(Kind::Conflict, "invalid_configuration", problem.to_string());
    let report = reload().await.map_err(wrong)?;
    let changes = Map::from_iter([("changed".to_owned(), json!(report.changed))]);
    audit.record(&api, (&TenantId::default_tenant(), "server.reload", ""), changes).await;
    Ok(response::json(StatusCode::OK, &report))
}

impl CallerDigests {
    pub fn of(callers: &CallerConfig) -> Self {
        let digests = |login: &Login| LoginDigests {
            username: sha256(login.username.as_bytes()),
            password: sha256(login.password.reveal().as_bytes()),
        };
        Self {
            login: callers.login.as_ref().map(digests),
            admin: callers.admin.as_ref().map(|key| sha256(key.reveal().as_bytes())),
        }
    }

    /// Returns true if callers need no credentials.
    pub fn are_open(&self) -> bool {
        self.login.is_none() && self.admin.is_none()
    }
}

impl LoginDigests {
    pub fn matches(&self, username: &[u8], password: &[u8]) -> bool {
        // Both are compared always, so that the time does not reveal which one is wrong.
        let username = sha256(username).ct_eq(&self.username);
        let password = sha256(password).ct_eq(&self.password);
        (username & password).into()
    }
}
