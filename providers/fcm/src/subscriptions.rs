//! Topic subscriptions: a device follows a topic, and a push to the topic reaches it.
//!
//! Source: `projects.registrations.topicSubscriptions` in the discovery document of fcm.googleapis.com (revision
//! 20261023), which replaces the Instance ID API. Its list needs a registration, so it is an item of its own here: that of
//! the device.

use crate::{Fcm, decode, encode};
use pushlet_provider::input::{invalid, missing};
use pushlet_provider::management::{
    Action, Collection, Item, Method, Operation, Parameter, ParameterKind, Request, Response,
};
use pushlet_provider::{Application, Context, Disposition, Manager, Outcome, Rejection, json, reply};
use serde_json::{Value, json};

const REGISTRATION: &str = "registration";
const TOPIC: &str = "topic";
/// Subscriptions that are read of a device at once: with names of the usual length, as many as an answer may hold.
const MOST_READ: usize = 150;

impl Manager for Fcm {
    fn collections() -> Vec<Collection> {
        let parameter = |name: &str, description: &str| Parameter {
            name: name.into(),
            kind: ParameterKind::Text,
            choices: Vec::new(),
            required: true,
            description: description.into(),
        };
        vec![Collection {
            name: "subscriptions".into(),
            description: "Topics that a device follows. An id is the device's token, a slash and the topic. The device's \
                          token alone is the id of an item with all its `topics`, or the first of them and `more`."
                .into(),
            actions: vec![Action::Create, Action::Read, Action::Delete],
            parameters: vec![
                parameter(REGISTRATION, "The device's token, or its Firebase installation id."),
                parameter(TOPIC, "The topic: 1 to 900 letters, digits and -_.~%."),
            ],
        }]
    }

    fn encode(
        _: &Context,
        application: &Application,
        _: &str,
        operation: &Operation,
    ) -> Result<Request, Rejection> {
        let project = encode::project(application)?;
        let Subscription { registration, topic } = Subscription::of(operation)?;
        let parent =
            format!("/v1/projects/{project}/registrations/{}/topicSubscriptions", percent(&registration));
        let topic = topic.as_deref().map(percent);
        let (method, path) = match (operation, topic) {
            (_, None) => (Method::Get, format!("{parent}?pageSize={MOST_READ}")),
            (Operation::Create(_), Some(topic)) => (Method::Post, format!("{parent}?topicName={topic}")),
            (Operation::Delete(_), Some(topic)) => (Method::Delete, format!("{parent}/{topic}")),
            (_, Some(topic)) => (Method::Get, format!("{parent}/{topic}")),
        };
        let is_new = matches!(operation, Operation::Create(_));
        let (headers, body) = match is_new {
            true => (vec![("content-type".into(), "application/json".into())], b"{}".to_vec()),
            false => (Vec::new(), Vec::new()),
        };
        Ok(Request { endpoint: "send".into(), method, path, headers, body, authenticate: true })
    }

    fn decode(
        context: &Context,
        _: &Application,
        _: &str,
        operation: &Operation,
        response: &Response,
    ) -> Result<Vec<Item>, Outcome> {
        let response = pushlet_provider::Response {
            status: response.status,
            headers: response.headers.clone(),
            body: response.body.clone(),
        };
        let body = json::body(&response);
        let is_new = matches!(operation, Operation::Create(_));
        // Whoever subscribes again has what was asked for.
        if response.status == 200 || (is_new && response.status == 409) {
            return match operation {
                Operation::Delete(_) => Ok(Vec::new()),
                _ => Subscription::of(operation).map(|found| vec![found.item(&body)]).map_err(|_| not_read()),
            };
        }
        let mut outcome = decode::outcome(&response, &body, context.now);
        let is_gone = matches!(outcome.disposition, Disposition::Unregistered(_));
        match (is_new, outcome.code.as_deref()) {
            // Here `unregistered` says that there is no such item.
            (false, Some("NOT_FOUND")) => outcome.disposition = Disposition::Unregistered(None),
            (true, _) if is_gone => outcome.disposition = Disposition::Rejected,
            _ => {}
        }
        Err(outcome)
    }
}

/// A device that follows a topic; None: all that it follows.
struct Subscription {
    registration: String,
    topic: Option<String>,
}

impl Subscription {
    fn of(operation: &Operation) -> Result<Self, Rejection> {
        let (registration, mut topic) = match operation {
            Operation::Create(properties) => {
                let properties = json::object(REGISTRATION, Some(properties))?;
                let text = |name: &str| {
                    let text = properties.get(name).and_then(Value::as_str).map(String::from);
                    text.ok_or_else(|| missing(name, format!("{name} is required")))
                };
                (text(REGISTRATION)?, Some(text(TOPIC)?))
            }
            Operation::Read(id) if !id.contains('/') => (id.clone(), None),
            Operation::Read(id) | Operation::Delete(id) => {
                let parts = id.rsplit_once('/');
                let parts = parts.map(|(registration, topic)| (registration.into(), Some(topic.into())));
                parts.ok_or_else(|| invalid(TOPIC, "the id must be a device's token, a slash and a topic"))?
            }
            Operation::ReadAll => return Err(missing(REGISTRATION, "subscriptions are read by device")),
        };
        encode::named(REGISTRATION, &registration)?;
        if let Some(topic) = &mut topic {
            *topic = encode::topic_name(topic)?.to_string();
        }
        Ok(Self { registration, topic })
    }

    fn item(self, body: &Value) -> Item {
        let Self { registration, topic } = self;
        let mut properties = json::Object::new();
        properties.insert(REGISTRATION.into(), registration.as_str().into());
        let Some(topic) = topic else {
            let all = body.get("topicSubscriptions").and_then(Value::as_array);
            let topics = all.into_iter().flatten().filter_map(|found| found.get("topicName"));
            properties.insert("topics".into(), topics.cloned().collect());
            if body.get("nextPageToken").and_then(Value::as_str).is_some_and(|token| !token.is_empty()) {
                properties.insert("more".into(), true.into());
            }
            return Item { id: registration, properties: json::write(&json!(properties)) };
        };
        properties.insert(TOPIC.into(), topic.as_str().into());
        if let Some(time) = body.get("createTime").filter(|time| time.is_string()) {
            properties.insert("create_time".into(), time.clone());
        }
        Item { id: format!("{registration}/{topic}"), properties: json::write(&json!(properties)) }
    }
}

fn not_read() -> Outcome {
    reply::failed(Disposition::Unknown, None, Some("Google's answer cannot be understood".into()))
}

/// A segment of a path, or the value of a query: all but the unreserved characters is encoded (RFC 3986).
fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
            byte => {
                let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0').to_ascii_uppercase();
                encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pushlet_provider::Environment;

    const CONTEXT: Context = Context { now: 1_700_000_000_000, entropy: Vec::new() };

    fn application() -> Application {
        Application {
            id: "example".into(),
            environment: Environment::Production,
            settings: vec![("fcm_project_id".into(), "example-project".into())],
            credential: Some("service-account".into()),
        }
    }

    fn encoded(operation: Operation) -> Result<(Method, String, String), String> {
        let request = <Fcm as Manager>::encode(&CONTEXT, &application(), "subscriptions", &operation);
        let request = request.map_err(|error| error.code)?;
        Ok((request.method, request.path, String::from_utf8(request.body).unwrap()))
    }

    fn decoded(
        operation: Operation,
        status: u16,
        body: &str,
    ) -> Result<Vec<Item>, (Disposition, Option<String>)> {
        let response = Response { status, headers: Vec::new(), body: body.into() };
        let decoded =
            <Fcm as Manager>::decode(&CONTEXT, &application(), "subscriptions", &operation, &response);
        decoded.map_err(|outcome| (outcome.disposition, outcome.code))
    }

    fn create() -> Operation {
        Operation::Create(r#"{"registration":"bk3:APA91b/x","topic":"news%1"}"#.into())
    }

    #[test]
    fn requests_are_those_of_the_document() {
        let parent = "/v1/projects/example-project/registrations/bk3%3AAPA91b%2Fx/topicSubscriptions";
        let created = encoded(create()).unwrap();
        assert_eq!(created, (Method::Post, format!("{parent}?topicName=news%251"), "{}".into()));
        let id = || "bk3:APA91b/x/news%1".to_string();
        assert_eq!(
            encoded(Operation::Read(id())),
            Ok((Method::Get, format!("{parent}/news%251"), String::new()))
        );
        assert_eq!(encoded(Operation::Delete(id())).unwrap().0, Method::Delete);
        let all = encoded(Operation::Read("bk3:APA91b".into())).unwrap();
        let parent = "/v1/projects/example-project/registrations/bk3%3AAPA91b/topicSubscriptions";
        assert_eq!(all, (Method::Get, format!("{parent}?pageSize=150"), String::new()));
    }

    #[test]
    fn what_google_would_refuse_is_refused() {
        let refused = |operation| encoded(operation).unwrap_err();
        assert_eq!(refused(Operation::Create("{}".into())), "missing_registration");
        let wrong = r#"{"registration":"a","topic":"a b"}"#;
        assert_eq!(refused(Operation::Create(wrong.into())), "invalid_topic");
        assert_eq!(
            refused(Operation::Create(r#"{"registration":"","topic":"a"}"#.into())),
            "invalid_registration"
        );
        assert_eq!(refused(Operation::Delete("no-topic".into())), "invalid_topic");
        assert_eq!(refused(Operation::Read("device/no topic".into())), "invalid_topic");
        assert_eq!(refused(Operation::ReadAll), "missing_registration");
    }

    #[test]
    fn answers_are_read() {
        let body = r#"{"name":"x","topicName":"news%1","createTime":"2026-11-27T08:00:00Z"}"#;
        let made = decoded(create(), 200, body).unwrap();
        let properties =
            r#"{"registration":"bk3:APA91b/x","topic":"news%1","create_time":"2026-11-27T08:00:00Z"}"#;
        assert_eq!((&*made[0].id, &*made[0].properties), ("bk3:APA91b/x/news%1", properties));
        let exists = r#"{"error":{"code":409,"status":"ALREADY_EXISTS","message":"x"}}"#;
        assert_eq!(decoded(create(), 409, exists).unwrap().len(), 1);
        assert_eq!(decoded(Operation::Delete("a/b".into()), 200, "{}"), Ok(Vec::new()));
        let page = r#"{"topicSubscriptions":[{"name":"x/a","topicName":"a"},{"topicName":"b"}],"nextPageToken":"c"}"#;
        let all = decoded(Operation::Read("device".into()), 200, page).unwrap();
        let properties = r#"{"registration":"device","topics":["a","b"],"more":true}"#;
        assert_eq!((&*all[0].id, &*all[0].properties), ("device", properties));
        let none = decoded(Operation::Read("device".into()), 200, r#"{"nextPageToken":""}"#).unwrap();
        assert_eq!(none[0].properties, r#"{"registration":"device","topics":[]}"#);
        let missing = r#"{"error":{"code":404,"status":"NOT_FOUND","message":"x"}}"#;
        let gone = decoded(Operation::Read("a/b".into()), 404, missing).unwrap_err();
        assert_eq!(gone, (Disposition::Unregistered(None), Some("NOT_FOUND".into())));
        let dead = r#"{"error":{"code":404,"status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}"#;
        let dead = decoded(create(), 404, dead).unwrap_err();
        assert_eq!(dead, (Disposition::Rejected, Some("UNREGISTERED".into())));
    }
}
