//! The three routes of the original Pushlet, with its fields, responses and order of errors.
//!
//! The original's JSONP (`callback`) is left out on purpose: it let any web page read the responses with the
//! visitor's password.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::FutureExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::access_log::{RequestLog, SendRecord};
use crate::caller::ByTenant;
use crate::form::Form;
use crate::idempotency::MayHaveBeenDelivered;
use crate::in_flight::{InFlightPermit, detached};
use crate::openapi::schemas::{self, Bounded, Component, Device, Guarded, Missing, Once, Read, Service};
use crate::response::{self, ErrorResponse};
use crate::v1::Auditor;
use pushlet_gateway::{
    DeadToken, DeliveryResult, Duplicates, FeedbackRead, Fields, IndexedResult, Registration, Send,
    SendReport, Via, utc,
};
use pushlet_model::contract::Target;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

/// Secrets that may come with a send, and the `type` that each one is for.
const INLINE_SECRETS: &[(&str, &str)] = &[("gcm_api_key", GCM)];
/// The `type` whose callers expect the service's own response.
const GCM: &str = "gcm";

/// An application that was registered.
#[derive(Serialize, ToSchema)]
pub struct Registered {
    #[schema(example = "my-apns-app")]
    application_id: String,
}

/// The push service accepted it.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// `ok`, or `valid` if the push was only checked (`dry_run`, `validate_only`).
    #[schema(example = "ok")]
    response: &'static str,
}

/// Tokens that were reported dead since the last call.
#[derive(Serialize, ToSchema)]
pub struct Feedback {
    response: Vec<DeadTokenView>,
}

/// A token that the push service reported dead: remove it.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadToken)]
pub struct DeadTokenView {
    device_token: String,
    /// When it died, RFC 3339.
    #[schema(example = "2012-11-27T22:24:07Z")]
    timestamp: String,
}

/// Register an application
///
/// With the credential that its push service needs. Everything is checked now, without a connection to the push
/// service. An application with the same id is replaced. The fields may be in the query too.
#[utoipa::path(
    post, path = "/register_application", operation_id = "register_application", tag = "Classic",
    request_body(content(
        (schemas::RegistrationMultipart = "multipart/form-data"),
        (schemas::RegistrationForm = "application/x-www-form-urlencoded"),
        (schemas::RegistrationJson = "application/json"),
    )),
    responses((status = 200, description = "Registered.", body = Registered), Read, Bounded, Component, Guarded)
)]
pub async fn register_application(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    audit: Auditor,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let registration = registration_from(Form::read(request, api.body_limits).await?)?;
    let registered = audit.register(&api, tenant, registration).await?;
    Ok(response::json(StatusCode::OK, &Registered { application_id: registered.id }))
}

/// Send a notification to one device
///
/// The status says what happened: 200 if the push service accepted it. For GCM the body is the service's own JSON.
/// In addition to the fields listed, all options of the application's provider are accepted. The fields may be in the
/// query too.
#[utoipa::path(
    post, path = "/send_notification", operation_id = "send_notification", tag = "Classic",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "A repeat with the same key within a day gets the first response, and is not sent.")),
    request_body(content(
        (schemas::SendForm = "application/x-www-form-urlencoded"),
        (schemas::SendMultipart = "multipart/form-data"),
        (schemas::SendJson = "application/json"),
    )),
    responses(
        (status = 200, description = "The push service accepted it.",
            content((schemas::Sent = "application/json"))),
        Missing, Read, Once, Bounded, Service, Device, Guarded
    )
)]
pub fn send_notification(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    permit: InFlightPermit,
    log: RequestLog,
    request: Request,
) -> impl Future<Output = Response> {
    let (state, owner, size) = (api.clone(), tenant.clone(), api.body_limits.size);
    let perform =
        |request| send(api, tenant, (permit, log), request).map(|sent| sent.unwrap_or_else(response::error));
    state.idempotency.once(&owner, (request, size), perform)
}

async fn send(
    api: Api,
    tenant: TenantId,
    (permit, log): (InFlightPermit, RequestLog),
    request: Request,
) -> Result<Response, Error> {
    // Boxed: while the push is under way, nothing of it is left.
    let form = Box::pin(Form::read(request, api.body_limits)).await?;
    let mut send = send_from(form, |name| unknown_type(&api, &tenant, name))?;
    send.request_id = Some(log.head().id().into());
    let asks_for_gcm = send.provider.as_deref() == Some(GCM);
    // Not a local first: this future would keep room for it, although it is moved.
    let report = detached(permit, async move {
        let application = match &send.via {
            Via::Application(id) => id.clone(),
            Via::Inline(_) => String::new(),
        };
        let report = api.gateway.send(&tenant, send).await;
        log.sent(SendRecord::of(application, &report));
        report
    })
    .await;
    let mut results = report.iter().flat_map(|report| &report.results);
    let arrived = results.any(|result| result.result.may_have_been_delivered());
    let mut response = response_to(report, asks_for_gcm).unwrap_or_else(response::error);
    if arrived {
        response.extensions_mut().insert(MayHaveBeenDelivered);
    }
    Ok(response)
}

/// Read the dead tokens of an application
///
/// Those that were reported since the last call: this call clears the list.
#[utoipa::path(
    post, path = "/application_feedback", operation_id = "application_feedback", tag = "Classic",
    request_body(content(
        (schemas::FeedbackForm = "application/x-www-form-urlencoded"),
        (schemas::FeedbackMultipart = "multipart/form-data"),
        (schemas::FeedbackJson = "application/json"),
    )),
    responses((status = 200, description = "Dead tokens.", body = Feedback), Missing, Read, Guarded)
)]
pub async fn application_feedback(
    State(api): State<Api>,
    ByTenant(tenant): ByTenant,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let mut form = Form::read(request, api.body_limits).await?;
    let id = form.take_text("application_id")?.ok_or_else(|| {
        Error::field(
            "missing_application_id",
            "application_id",
            "an application_id is required for this call",
        )
    })?;
    let dead = api.gateway.feedback(&tenant, &id, FeedbackRead::Take).await?;
    let response = dead.tokens.iter().map(DeadTokenView::of).collect();
    Ok(response::json(StatusCode::OK, &Feedback { response }))
}

fn registration_from(mut form: Form) -> Result<Registration, Error> {
    let application_id = form.take_text("application_id")?;
    let provider = form.take_text("type")?;
    // The JSONP parameter of 2012 is accepted and ignored, so that old clients still work.
    form.take_bytes("callback");
    Ok(Registration { application_id, provider, environment: None, fields: form.into_fields(), strict: true })
}

/// Returns the error of a `type` that no provider of the tenant has.
fn unknown_type(api: &Api, tenant: &TenantId, name: &str) -> Option<Error> {
    let providers = api.gateway.described(Some(tenant));
    let names = || providers.iter().map(|provider| &provider.manifest.name);
    let others = providers.iter().flat_map(|provider| &provider.manifest.also_answers);
    if providers.is_empty() || names().chain(others).any(|known| known == name) {
        return None;
    }
    let known: Vec<&str> = names().map(String::as_str).collect();
    Some(Error::field("invalid_type", "type", format!("type must be one of {}", known.join(", "))))
}

/// `unknown_type`: returns the error of an unknown type; called if there is neither an application nor a secret.
fn send_from(mut form: Form, unknown_type: impl Fn(&str) -> Option<Error>) -> Result<Send, Error> {
    // The original's order of errors, which its clients may depend on.
    let provider = form.take_text("type")?;
    let application = form.take_text("application_id")?;
    let inline = INLINE_SECRETS
        .iter()
        .filter_map(|(name, kind)| Some((*name, *kind, form.take_bytes(name)?)))
        .collect();
    let device_token = form.take_text("device_token")?;
    form.take_bytes("callback");
    let via = via(provider.as_deref(), application, inline).ok_or_else(|| {
        let message = "an application_id or gcm_api_key are required for this call";
        let missing = || Error::field("missing_identifier", "application_id", message);
        provider.as_deref().and_then(unknown_type).unwrap_or_else(missing)
    })?;
    let device_token = device_token.ok_or_else(|| {
        let message = "device_token is required, which is registed with the application on your phone";
        Error::field("device_token_required", "device_token", message)
    })?;
    let (fields, typed) = form.into_parts();
    Ok(Send {
        provider,
        via,
        notification: Fields::Classic(fields, typed),
        targets: vec![Target::Device(device_token).into()],
        // A single target cannot be a duplicate, so no digest is made of it.
        duplicates: Duplicates::Send,
        native: true,
        validate_only: false,
        capture: false,
        request_id: None,
        deadline: None,
    })
}

/// Returns what to send with: a secret of the given type first, then the application, then a secret if no type is
/// given.
fn via(
    provider: Option<&str>,
    application: Option<String>,
    inline: Vec<(&str, &str, Vec<u8>)>,
) -> Option<Via> {
    let (fitting, others): (Vec<_>, Vec<_>) =
        inline.into_iter().partition(|(_, kind, _)| provider == Some(kind));
    let secrets = |list: Vec<(&str, &str, Vec<u8>)>| -> BTreeMap<String, Vec<u8>> {
        list.into_iter().map(|(name, _, secret)| (name.to_owned(), secret)).collect()
    };
    match application {
        _ if !fitting.is_empty() => Some(Via::Inline(secrets(fitting))),
        Some(id) => Some(Via::Application(id)),
        None if provider.is_none() && !others.is_empty() => Some(Via::Inline(secrets(others))),
        None => None,
    }
}

fn response_to(report: Result<SendReport, Error>, asks_for_gcm: bool) -> Result<Response, Error> {
    let report = report.map_err(|error| in_gcm_terms(error, asks_for_gcm))?;
    let as_gcm = asks_for_gcm || report.provider == GCM;
    let Some(IndexedResult { result, attempts, .. }) = report.results.into_iter().next() else {
        return Err(Error::internal("the gateway returned no result"));
    };
    let native = report
        .native
        .filter(|_| as_gcm && matches!(result, DeliveryResult::Settled(_) | DeliveryResult::Valid));
    let response = if matches!(result, DeliveryResult::Valid) { "valid" } else { "ok" };
    let verdict = result.into_error(&report.provider);
    let verdict = verdict.map_err(|error| in_gcm_terms(after_attempts(error, attempts), as_gcm));
    match (verdict, native) {
        (_, Some(native)) => Ok(response::raw_json(StatusCode::OK, native)),
        (verdict, None) => verdict.map(|()| response::json(StatusCode::OK, &Accepted { response })),
    }
}

/// Adds the number of attempts to the message, since the original's response has no field for it.
fn after_attempts(mut error: Error, attempts: u32) -> Error {
    if attempts > 1 {
        error.message = format!("{} (after {attempts} attempts)", error.message).into();
    }
    error
}

/// Rewords a rejected credential of GCM as the original did.
fn in_gcm_terms(error: Error, as_gcm: bool) -> Error {
    if !as_gcm || error.kind != Kind::CredentialRejected {
        return error;
    }
    let cause = format!("{}: {}", error.code, error.message);
    let message = "the provided credentials were rejected by google servers";
    Error::new(Kind::CredentialRejected, "invalid_gcm_credentials", message)
        .after(error.retry_after)
        .caused_by(error.inner.map_or(cause.clone(), |inner| format!("{cause} ({inner})")))
}

impl DeadTokenView {
    pub fn of(dead: &DeadToken) -> Self {
        Self { device_token: dead.device_token.clone(), timestamp: utc(dead.since).to_string() }
    }
}

#[cfg(test)]
#[path = "classic_tests.rs"]
mod tests;
