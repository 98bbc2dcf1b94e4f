//! FCM's topic subscriptions: `/v1/projects/{project}/registrations/{registration}/topicSubscriptions`, by the discovery
//! document of fcm.googleapis.com.
//!
//! - `POST …/topicSubscriptions?topicName={topic}` creates one, and refuses a second one of the same name;
//! - `GET` and `DELETE …/topicSubscriptions/{topic}` read and delete it, `GET …/topicSubscriptions` lists all,
//!   in pages of `pageSize` from `pageToken` on.
//!
//! A registration that starts with an error code of [`super::fcm`], such as `UNREGISTERED`, gets that error.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{GoogleState, fcm, json};
use crate::answer::Answer;
use crate::state::Verdict;

/// Registrations that are kept.
const MOST_REGISTRATIONS: usize = 10_000;
/// Topics of one registration, as Google documents it.
const MOST_TOPICS: usize = 2000;

/// Subscriptions of a page, if the request does not say.
const PAGE: usize = 1000;

/// The topics of each registration, with the time of their creation.
#[derive(Default)]
pub(crate) struct Subscriptions(Mutex<HashMap<String, BTreeMap<String, String>>>);

/// A path of this collection.
pub(super) struct Place<'a> {
    project: &'a str,
    registration: String,
    topic: Option<String>,
}

/// Reads a path; None: it is none of this collection.
pub(super) fn place(path: &str) -> Option<Place<'_>> {
    let mut parts = path.strip_prefix("/v1/projects/")?.split('/');
    let (project, kind, registration, collection) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let topic = parts.next().map(decoded);
    let fits = kind == "registrations" && collection == "topicSubscriptions" && parts.next().is_none();
    fits.then(|| Place { project, registration: decoded(registration), topic })
}

/// A segment of a path, percent-decoded.
fn decoded(segment: &str) -> String {
    // A form's `+` is a space; a path's is not.
    let text = format!("x={}", segment.replace('+', "%2B").replace('&', "%26"));
    let mut fields = url::form_urlencoded::parse(text.as_bytes());
    fields.next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Does what is asked.
pub(super) fn answer(
    google: &GoogleState,
    place: Place<'_>,
    head: &http::request::Parts,
    body: &[u8],
) -> Verdict {
    if let Err(answer) = fcm::check_caller(google, place.project, &head.headers) {
        return Verdict::refused(answer);
    }
    let registration = place.registration.clone();
    if let Some(answer) = fcm::magic(&registration) {
        return Verdict::of(Some(registration), None, Ok(answer));
    }
    let query: HashMap<_, _> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).collect();
    let mut all = google.subscriptions.0.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= MOST_REGISTRATIONS {
        all.clear();
    }
    let topics = all.entry(registration.clone()).or_default();
    let name = |topic: &str| {
        format!("projects/{}/registrations/{}/topicSubscriptions/{topic}", place.project, place.registration)
    };
    let shown =
        |topic: &str, since: &str| json!({ "name": name(topic), "topicName": topic, "createTime": since });
    let checked = match (&head.method, &place.topic) {
        (&Method::POST, None) => {
            create(topics, query.get("topicName").map(|name| name.as_ref()), body, shown)
        }
        (&Method::GET, None) => {
            let number = query.get("pageSize").and_then(|size| size.parse().ok()).unwrap_or(PAGE);
            Ok(list(
                topics,
                number.clamp(1, MOST_TOPICS),
                query.get("pageToken").map(|token| &**token),
                shown,
            ))
        }
        (&Method::GET, Some(topic)) => match topics.get(topic) {
            Some(since) => Ok(Answer::json(StatusCode::OK, &shown(topic, since))),
            None => Err(missing()),
        },
        (&Method::DELETE, Some(topic)) => {
            let gone = topics.remove(topic).is_some();
            let is_fine = gone || query.get("allowMissing").is_some_and(|value| value == "true");
            if is_fine { Ok(Answer::json(StatusCode::OK, &json!({}))) } else { Err(missing()) }
        }
        _ => Err(Answer::html(StatusCode::NOT_FOUND, "Not Found")),
    };
    Verdict::of(Some(registration), place.topic, checked)
}

/// One page. The token of the next one is the last topic of this one.
fn list(
    topics: &BTreeMap<String, String>,
    size: usize,
    after: Option<&str>,
    shown: impl Fn(&str, &str) -> Value,
) -> Answer {
    let rest = topics.iter().filter(|(topic, _)| after.is_none_or(|after| topic.as_str() > after));
    let page: Vec<_> = rest.clone().take(size).collect();
    let listed: Vec<Value> = page.iter().map(|(topic, since)| shown(topic, since)).collect();
    let mut answer = json!({ "topicSubscriptions": listed });
    if let Some((last, _)) = page.last().filter(|_| rest.count() > size) {
        answer["nextPageToken"] = last.as_str().into();
    }
    Answer::json(StatusCode::OK, &answer)
}

fn create(
    topics: &mut BTreeMap<String, String>,
    topic: Option<&str>,
    body: &[u8],
    shown: impl Fn(&str, &str) -> Value,
) -> Result<Answer, Answer> {
    let wrong = |why: &str| json::error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", why, Vec::new());
    let topic = topic.ok_or_else(|| wrong("Topic name is required."))?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    if topic.is_empty() || topic.len() > 900 || !topic.bytes().all(letter) {
        return Err(wrong("Topic name must match the pattern [a-zA-Z0-9-_.~%]{1,900}."));
    }
    let sound = body.is_empty() || serde_json::from_slice::<Value>(body).is_ok_and(|body| body.is_object());
    if !sound {
        return Err(wrong("Invalid JSON payload received."));
    }
    if topics.contains_key(topic) {
        let message = "Requested entity already exists";
        return Err(json::error(StatusCode::CONFLICT, "ALREADY_EXISTS", message, Vec::new()));
    }
    if topics.len() >= MOST_TOPICS {
        let message = "Too many topics for this app instance.";
        return Err(json::error(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", message, Vec::new()));
    }
    const SINCE: &str = "2026-11-27T08:00:00Z";
    topics.insert(topic.to_owned(), SINCE.to_owned());
    Ok(Answer::json(StatusCode::OK, &shown(topic, SINCE)))
}

fn missing() -> Answer {
    json::error(StatusCode::NOT_FOUND, "NOT_FOUND", "Requested entity was not found.", Vec::new())
}
