//! `Prefer: respond-async` (RFC 7240) on sends: they are answered once the fleet has them, and outlive their callers.

use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::lines::{DISCARD_TIME, Interruption, is_blank, next_line, parse};
use super::send_body::{SendContent, SendRequest};

use crate::Api;
use crate::access_log::{RequestLog, SendRecord};
use crate::body::{BodyLine, BodyLines};
use crate::idempotency::MayHaveBeenDelivered;
use crate::in_flight::{InFlightPermit, detached};
use crate::response;
use pushlet_gateway::tenants::Permission;
use pushlet_gateway::{Line, PendingDelivery, SendTally, Shared};
use pushlet_model::error::{Error, Kind};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const RESPOND_ASYNC: &str = "respond-async";
/// Lines that are handed on together.
const LINES: usize = 250;

/// A delivery that was accepted.
#[derive(Serialize, ToSchema)]
pub struct AcceptedDelivery {
    #[schema(example = "0a1b2c3d4e5f60718293a4b5c6d7e8f9")]
    id: String,
    /// The path of the delivery, as in `Location`.
    href: String,
    targets: usize,
}

/// Returns true if the caller does not want to wait for the results.
pub fn prefers_async(headers: &HeaderMap) -> bool {
    let all = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let mut names =
        all.flat_map(|value| value.split(',')).filter_map(|preference| preference.split(';').next());
    names.any(|name| name.trim().eq_ignore_ascii_case(RESPOND_ASYNC))
}

/// Returns an error if a send whose caller waits is not to be begun now.
pub fn ensure_now(shared: &Shared) -> Result<(), Error> {
    if shared.not_before.is_none() {
        return Ok(());
    }
    let message = "not_before is for callers that do not wait for the response: with Prefer: respond-async";
    Err(Error::field("invalid_not_before", "not_before", message))
}

/// Accepts a send whose results the caller does not wait for.
pub async fn accept(
    api: Api,
    permission: Permission,
    (permit, log): (InFlightPermit, RequestLog),
    request: SendRequest,
) -> Result<Response, Error> {
    if request.explain || request.capture {
        return Err(nobody_waits());
    }
    let (shared, lines) = lines(request.content, &request.invalid);
    let application = shared.application_id.clone();
    detached(permit, async move {
        let begun = api.gateway.begin_delivery(permission, shared).await;
        let mut pending = logged_refusal(begun, &log, &application)?;
        pending.add(lines, request.invalid).await?;
        store(pending, &log, application).await
    })
    .await
}

/// Returns the error for a caller that wants to see more than it waits for.
pub fn nobody_waits() -> Error {
    let message = "explain and capture are for callers that wait for the response: without respond-async";
    Error::field("invalid_prefer", "Prefer", message)
}

/// Accepts a stream whose results the caller does not wait for, once its last line has come.
pub async fn accept_lines(
    api: Api,
    permission: Permission,
    (permit, log): (InFlightPermit, RequestLog),
    shared: Shared,
    mut lines: BodyLines,
) -> Result<Response, Error> {
    let application = shared.application_id.clone();
    let begun = api.gateway.begin_delivery(permission, shared).await;
    let mut pending = logged_refusal(begun, &log, &application)?;
    let read = read_lines(&api, &permit, &mut lines, &mut pending).await;
    // A connection that is closed while lines still arrive is reset, and the caller would lose the response.
    tokio::spawn(timeout(DISCARD_TIME, lines.discard()));
    read?;
    detached(permit, async move { store(pending, &log, application).await }).await
}

fn logged_refusal(
    begun: Result<PendingDelivery, Error>,
    log: &RequestLog,
    application: &str,
) -> Result<PendingDelivery, Error> {
    if begun.is_err() {
        log.sent(SendRecord::refused(application.to_owned()));
    }
    begun
}

/// Returns what all targets share, and a line for each that is not wrong, with its index in the request.
fn lines(content: SendContent, invalid: &[(usize, Error)]) -> (Shared, Vec<Line>) {
    let (shared, targets) = match content {
        SendContent::Different(shared, lines) => return (shared, lines),
        SendContent::Same(shared, targets) => (shared, targets),
    };
    let mut wrong = invalid.iter().map(|(index, _)| *index).peekable();
    let indices = (0..).filter(|index| wrong.next_if_eq(index).is_none());
    let line = |(index, target)| Line { index, target, notification: None, size: 0, held: None };
    let lines = indices.zip(targets).map(line).collect();
    (shared, lines)
}

/// Adds all lines of a body. What is wrong with a line is that line's result.
async fn read_lines(
    api: &Api,
    permit: &InFlightPermit,
    lines: &mut BodyLines,
    pending: &mut PendingDelivery,
) -> Result<(), Error> {
    let (idle, line_timeout) = (api.limits.stream_idle, api.limits.body_timeout);
    let (mut good, mut wrong, mut index) = (Vec::new(), Vec::new(), 0);
    loop {
        let line = match lines.take() {
            Some(line) => Some(line),
            None => tokio::select! {
                line = next_line(lines, idle, line_timeout) => line.map_err(interrupted)?,
                () = permit.closing() => return Err(interrupted(Interruption::ShuttingDown)),
            },
        };
        match line {
            None => break,
            Some(BodyLine::Text(text)) if is_blank(&text) => continue,
            Some(BodyLine::Text(text)) => match parse(index, &text) {
                Ok(line) => good.push(line),
                Err(error) => wrong.push((index, error)),
            },
            Some(BodyLine::TooLong) => {
                wrong.push((index, Error::new(Kind::TooLarge, "line_too_long", "the line is too long")));
            }
        }
        index += 1;
        if good.len() + wrong.len() >= LINES {
            pending.add(std::mem::take(&mut good), std::mem::take(&mut wrong)).await?;
        }
    }
    pending.add(good, wrong).await
}

fn interrupted(why: Interruption) -> Error {
    match why {
        Interruption::ShuttingDown => {
            Error::new(Kind::Overloaded, "shutting_down", "this server is stopping, try another")
        }
        Interruption::Idle => {
            Error::new(Kind::Invalid, "request_timeout", "a line took too long to arrive; nothing is sent")
        }
        _ => Error::new(Kind::Invalid, "incomplete_body", "the body ended early; nothing is sent"),
    }
}

async fn store(pending: PendingDelivery, log: &RequestLog, application: String) -> Result<Response, Error> {
    let (provider, targets) = (pending.provider().to_owned(), pending.targets());
    let stored = pending.store().await;
    let ended = stored.is_ok().then_some("queued");
    log.sent(SendRecord { application, provider, tally: SendTally::default(), ended });
    let mut response = match stored {
        Ok(id) => accepted(id, targets),
        // It may be sent: a repeat with the same key must not be another delivery.
        Err(error) if error.kind == Kind::TimedOut => response::error_with_field(error),
        Err(error) => return Err(error),
    };
    response.extensions_mut().insert(MayHaveBeenDelivered);
    Ok(response)
}

fn accepted(id: String, targets: usize) -> Response {
    let href = format!("/v1/deliveries/{id}");
    let location = HeaderValue::from_str(&href).ok();
    let mut response = response::json(StatusCode::ACCEPTED, &AcceptedDelivery { id, href, targets });
    let headers = response.headers_mut();
    headers.extend(location.map(|location| (LOCATION, location)));
    headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_does_not_want_to_wait_says_so_as_the_standard_has_it() {
        let headers = |values: &[&'static str]| -> HeaderMap {
            values.iter().map(|value| (PREFER, HeaderValue::from_static(value))).collect()
        };
        for yes in [
            &["respond-async"][..],
            &["Respond-Async"],
            &["wait=10, respond-async"],
            &["return=minimal", "respond-async; x=1"],
        ] {
            assert!(prefers_async(&headers(yes)), "{yes:?}");
        }
        for no in [&[][..], &["return=minimal"], &["respond-asynchronously"], &["wait=\"respond-async\""]] {
            assert!(!prefers_async(&headers(no)), "{no:?}");
        }
    }

    #[test]
    fn targets_keep_their_places_in_the_request() {
        use pushlet_gateway::{Duplicates, Targets};
        use pushlet_model::contract::Target;
        let shared = Shared {
            application_id: "app".into(),
            notification: serde_json::Map::new(),
            size: 0,
            validate_only: false,
            deadline: None,
            duplicates: Duplicates::Skip,
            targets: Targets::Counted(0),
            not_before: None,
            capture: false,
            request_id: None,
        };
        let targets = ["a", "b", "c"].map(|token| Target::Device(token.into()).into()).to_vec();
        let wrong = |index| (index, Error::internal("x"));
        let content = SendContent::Same(shared, targets);
        let (_, lines) = lines(content, &[wrong(0), wrong(2), wrong(3), wrong(6)]);
        let indices: Vec<_> = lines.iter().map(|line| line.index).collect();
        assert_eq!(indices, [1, 4, 5]);
    }
}
