//! `POST /v1/notifications`: one notification for many targets, or many different ones.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::admission::Place;
use super::super::{Api, answer, detached};
use super::result::{Summary, TargetResult};
use super::{Failure, json, target};
use crate::contract::Target;
use crate::error::Error;
use crate::gateway::{Fields, Send, Via};
use crate::tenant::TenantId;

/// Targets of one request; more are what `:stream` is for.
const MOST_TARGETS: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    application_id: String,
    notification: Option<Map<String, Value>>,
    targets: Option<Vec<Value>>,
    notifications: Option<Vec<Item>>,
    /// Seconds.
    deadline: Option<f64>,
}

/// One of many different notifications.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    notification: Map<String, Value>,
    target: Value,
}

#[derive(Serialize)]
struct Answer {
    results: Vec<TargetResult>,
    summary: Summary,
}

/// One notification and its targets.
type Part = (Map<String, Value>, Vec<Target>);

pub(super) async fn send(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Extension(place): Extension<Place>,
    request: Request,
) -> Result<Response, Failure> {
    let body: Body = json(request, api.limits.notifications_body).await?;
    let deadline = body.deadline.map(seconds).transpose()?;
    let application_id = body.application_id.clone();
    let parts = parts(body)?;
    let single = parts.len() == 1;
    let work = async move {
        let mut results = Vec::new();
        for (notification, targets) in parts {
            let count = targets.len();
            let send = Send {
                provider: None,
                via: Via::Application(application_id.clone()),
                notification: Fields::Strict(notification),
                targets,
                native: false,
                deadline,
            };
            match api.backend.send(tenant.clone(), send).await {
                Ok(report) => report.fates.into_iter().for_each(|fate| {
                    results.push(TargetResult::new(results.len(), fate));
                }),
                // With different notifications, what is wrong with one says nothing about the others.
                Err(error) if single || error.code == "application_not_found" => return Err(error),
                Err(error) => {
                    (0..count).for_each(|_| results.push(TargetResult::failed(results.len(), error.clone())));
                }
            }
        }
        Ok(results)
    };
    let results = detached(place, work).await?;
    let mut summary = Summary::default();
    results.iter().for_each(|result| summary.count(result.status));
    Ok(answer::json(StatusCode::OK, &Answer { results, summary }))
}

fn parts(body: Body) -> Result<Vec<Part>, Error> {
    let parts: Vec<Part> = match (body.notification, body.targets, body.notifications) {
        (Some(notification), Some(targets), None) => {
            let parsed: Result<Vec<_>, _> = targets
                .iter()
                .enumerate()
                .map(|(index, value)| target::parse(value, &format!("targets[{index}]")))
                .collect();
            vec![(notification, parsed?)]
        }
        (None, None, Some(items)) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| {
                let target = target::parse(&item.target, &format!("notifications[{index}].target"))?;
                Ok((item.notification, vec![target]))
            })
            .collect::<Result<_, Error>>()?,
        _ => {
            let message = "give notification and targets, or notifications";
            return Err(Error::field("missing_notification", "notification", message));
        }
    };
    match parts.iter().map(|(_, targets)| targets.len()).sum::<usize>() {
        0 => Err(Error::field("missing_targets", "targets", "there is no target")),
        count if count > MOST_TARGETS => {
            let message =
                format!("there are {count} targets, more than {MOST_TARGETS}; use /v1/notifications:stream");
            Err(Error::field("too_many_targets", "targets", message))
        }
        _ => Ok(parts),
    }
}

/// A wait as callers write it.
pub(super) fn seconds(value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value).ok().filter(|wait| !wait.is_zero()).ok_or_else(|| {
        Error::field("invalid_deadline", "deadline", "deadline must be a number of seconds above 0")
    })
}
