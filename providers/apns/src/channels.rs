//! Broadcast channels: those who follow a Live Activity share one, and one broadcast updates them all.
//!
//! Source: Apple's "Sending channel management requests to APNs".

use crate::{Apns, decode, encode, topic};
use pushlet_provider::input::{Options, invalid};
use pushlet_provider::management::{
    Action, Collection, Item, Method, Operation, Parameter, ParameterKind, Request, Response,
};
use pushlet_provider::time::header;
use pushlet_provider::{Application, Context, Disposition, Manager, Outcome, Rejection, json, reply, uuid};
use serde_json::{Value, json};

const POLICY: &str = "message_storage_policy";

impl Manager for Apns {
    fn collections() -> Vec<Collection> {
        vec![Collection {
            name: "channels".into(),
            description: "Broadcast channels for Live Activities, at most 10,000 per app and environment."
                .into(),
            actions: vec![Action::Create, Action::Read, Action::ReadAll, Action::Delete],
            parameters: vec![Parameter {
                name: POLICY.into(),
                kind: ParameterKind::Integer,
                choices: vec!["0".into(), "1".into()],
                required: true,
                description:
                    "1: Apple keeps the newest message for devices that are offline; 0: it keeps none.".into(),
            }],
        }]
    }

    fn encode(
        context: &Context,
        application: &Application,
        _: &str,
        operation: &Operation,
    ) -> Result<Request, Rejection> {
        let bundle = topic::bundle(topic::base(application, Options::none())?.as_deref())?;
        let mut headers: Vec<(String, String)> = Vec::new();
        headers.extend(uuid::random(&context.entropy, 0).map(|id| ("apns-request-id".into(), id)));
        let (method, path, body) = match operation {
            Operation::Create(properties) => (Method::Post, "channels", new_channel(properties)?),
            Operation::ReadAll => (Method::Get, "all-channels", Vec::new()),
            Operation::Read(_) => (Method::Get, "channels", Vec::new()),
            Operation::Delete(_) => (Method::Delete, "channels", Vec::new()),
        };
        if let Operation::Read(id) | Operation::Delete(id) = operation {
            headers.push(("apns-channel-id".into(), encode::channel_id(id)?));
        }
        let path = format!("/1/apps/{bundle}/{path}");
        Ok(Request { endpoint: "channels".into(), method, path, headers, body, authenticate: true })
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
        if !(200..300).contains(&response.status) {
            let mut outcome = decode::outcome(&response, context.now);
            if outcome.code.as_deref() == Some("ChannelNotRegistered") {
                outcome.disposition = Disposition::Unregistered(None);
            }
            return Err(outcome);
        }
        items(operation, &response).ok_or_else(|| {
            reply::failed(Disposition::Unknown, None, Some("Apple's answer cannot be understood".into()))
        })
    }
}

fn new_channel(properties: &str) -> Result<Vec<u8>, Rejection> {
    let properties = json::object(POLICY, Some(properties))?;
    let policy = properties.get(POLICY).and_then(Value::as_u64).filter(|policy| *policy <= 1);
    let policy = policy.ok_or_else(|| invalid(POLICY, format!("{POLICY} must be 0 or 1")))?;
    Ok(json::write(&json!({ "message-storage-policy": policy, "push-type": "LiveActivity" })).into_bytes())
}

fn items(operation: &Operation, response: &pushlet_provider::Response) -> Option<Vec<Item>> {
    match operation {
        Operation::Create(properties) => {
            let id = header(response, "apns-channel-id")?.to_string();
            Some(vec![Item { id, properties: properties.clone() }])
        }
        Operation::Read(id) => {
            let body = json::body(response);
            let policy = body.get("message-storage-policy")?.clone();
            let properties = json!({ POLICY: policy, "push_type": body.get("push-type") });
            Some(vec![Item { id: id.clone(), properties: json::write(&properties) }])
        }
        Operation::ReadAll => {
            let body = json::body(response);
            let ids = body.get("channels")?.as_array()?.iter();
            ids.map(|id| Some(Item { id: id.as_str()?.to_string(), properties: "{}".into() })).collect()
        }
        Operation::Delete(_) => Some(Vec::new()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pushlet_provider::Environment;

    const CONTEXT: Context = Context { now: 1_700_000_000_000, entropy: Vec::new() };

    fn application(topic: Option<&str>) -> Application {
        Application {
            id: "example".into(),
            environment: Environment::Production,
            settings: topic.map(|topic| ("apns_topic".to_string(), topic.to_string())).into_iter().collect(),
            credential: Some("token".into()),
        }
    }

    fn encoded(operation: Operation) -> Result<Request, String> {
        let application = application(Some("com.example.app.push-type.liveactivity"));
        let context = Context { entropy: vec![7; 16], ..CONTEXT };
        <Apns as Manager>::encode(&context, &application, "channels", &operation).map_err(|error| error.code)
    }

    fn decoded(
        operation: Operation,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Vec<Item>, Outcome> {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let response = Response { status, headers, body: body.into() };
        <Apns as Manager>::decode(&CONTEXT, &application(None), "channels", &operation, &response)
    }

    fn told(request: &Request) -> (Method, &str, &str) {
        (request.method, &request.path, std::str::from_utf8(&request.body).unwrap())
    }

    fn header_of<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
        request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn requests_are_those_of_the_document() {
        let channels = "/1/apps/com.example.app/channels";
        let create = encoded(Operation::Create(r#"{"message_storage_policy":1}"#.into())).unwrap();
        let body = r#"{"message-storage-policy":1,"push-type":"LiveActivity"}"#;
        assert_eq!(told(&create), (Method::Post, channels, body));
        assert_eq!(header_of(&create, "apns-request-id").map(str::len), Some(36));
        let read = encoded(Operation::Read("dHN0LXNyY2gtY2hubA==".into())).unwrap();
        assert_eq!(told(&read), (Method::Get, channels, ""));
        assert_eq!(header_of(&read, "apns-channel-id"), Some("dHN0LXNyY2gtY2hubA=="));
        let all = encoded(Operation::ReadAll).unwrap();
        assert_eq!(told(&all), (Method::Get, "/1/apps/com.example.app/all-channels", ""));
        assert_eq!(header_of(&all, "apns-channel-id"), None);
        let delete = encoded(Operation::Delete("YQ==".into())).unwrap();
        assert_eq!(told(&delete), (Method::Delete, channels, ""));
    }

    #[test]
    fn what_apple_would_refuse_is_refused() {
        for properties in ["{}", r#"{"message_storage_policy":2}"#, r#"{"message_storage_policy":"1"}"#] {
            let refused = encoded(Operation::Create(properties.into()));
            assert_eq!(refused.err().as_deref(), Some("invalid_message_storage_policy"), "{properties}");
        }
        assert_eq!(encoded(Operation::Read("a b".into())).err().as_deref(), Some("invalid_channel"));
        let nameless =
            <Apns as Manager>::encode(&CONTEXT, &application(None), "channels", &Operation::ReadAll);
        assert_eq!(nameless.unwrap_err().code, "missing_topic");
    }

    #[test]
    fn answers_are_read() {
        let create = Operation::Create(r#"{"message_storage_policy":1}"#.into());
        let made = decoded(create.clone(), 201, &[("apns-channel-id", "YQ==")], "").unwrap();
        assert_eq!((&*made[0].id, &*made[0].properties), ("YQ==", r#"{"message_storage_policy":1}"#));
        assert_eq!(decoded(create, 201, &[], "").unwrap_err().disposition, Disposition::Unknown);
        let body = r#"{"message-storage-policy":0,"push-type":"LiveActivity"}"#;
        let read = decoded(Operation::Read("YQ==".into()), 200, &[], body).unwrap();
        assert_eq!(read[0].properties, r#"{"message_storage_policy":0,"push_type":"LiveActivity"}"#);
        let all = decoded(Operation::ReadAll, 200, &[], r#"{"channels":["YQ==","Yg=="]}"#).unwrap();
        assert_eq!(all.iter().map(|item| &*item.id).collect::<Vec<_>>(), ["YQ==", "Yg=="]);
        assert!(decoded(Operation::ReadAll, 200, &[], r#"{"channels":[1]}"#).is_err());
        assert_eq!(decoded(Operation::Delete("YQ==".into()), 204, &[], ""), Ok(Vec::new()));
    }

    #[test]
    fn a_channel_that_is_not_there_is_told() {
        let gone = decoded(Operation::Read("YQ==".into()), 400, &[], r#"{"reason":"ChannelNotRegistered"}"#);
        let gone = gone.unwrap_err();
        assert_eq!(gone.disposition, Disposition::Unregistered(None));
        assert_eq!(gone.code.as_deref(), Some("ChannelNotRegistered"));
        let full = decoded(Operation::ReadAll, 400, &[], r#"{"reason":"FeatureNotEnabled"}"#).unwrap_err();
        assert_eq!(full.disposition, Disposition::Rejected);
        let trouble = decoded(Operation::ReadAll, 503, &[("retry-after", "2")], "").unwrap_err();
        assert_eq!(trouble.disposition, Disposition::Unavailable(Some(2000)));
    }
}
