//! Notifications to requests: up to 1,000 devices in one, a topic or a condition in one of its own.

use crate::draft::Draft;
use crate::manifest::{APP_ID, MOST_TOKENS, PROJECT_ID, SERVICE_ACCOUNT};
use crate::{message_v1, message_v3};
use pushlet_provider::input::{invalid, missing, setting, too_large, unsupported};
use pushlet_provider::json;
use pushlet_provider::reply::{self, index};
use pushlet_provider::{
    Application, Encoded, Exchange, Message, Method, Notification, Recipient, Refusal, Rejection, Target,
};

/// Bytes of a message at most, without its tokens.
const LARGEST: usize = 4096;
/// Bytes of a token, topic or condition at most. Huawei names no limit; tokens are below 200.
const NAME_LIMIT: usize = 4096;

/// One of Huawei's two APIs, and the application's place in it.
#[derive(Clone, Copy)]
pub enum Api<'a> {
    /// HMS Core on Android; the app's id.
    V1(&'a str),
    /// HarmonyOS 5 and later; the project's id.
    V3(&'a str),
}

impl<'a> Api<'a> {
    /// The API that the application's credential is for.
    pub fn of(application: &'a Application) -> Result<Self, Rejection> {
        match application.credential.as_deref() == Some(SERVICE_ACCOUNT) {
            true => id(application, PROJECT_ID).map(Self::V3),
            false => id(application, APP_ID).map(Self::V1),
        }
    }

    fn path(self) -> String {
        match self {
            Self::V1(app) => format!("/v1/{app}/messages:send"),
            Self::V3(project) => format!("/v3/{project}/messages:send"),
        }
    }
}

/// Encodes a notification for devices, topics and conditions.
pub fn encode(
    application: &Application,
    notification: &Notification,
    recipients: &[Recipient],
) -> Result<Encoded, Rejection> {
    let api = Api::of(application)?;
    let draft = match api {
        Api::V1(_) => message_v1::draft(application, notification)?,
        Api::V3(_) => message_v3::draft(application, notification)?,
    };
    check_size(&draft, notification)?;
    let mut call = Call { path: api.path(), draft, encoded: reply::empty() };
    let mut devices: Vec<(usize, &str)> = Vec::new();
    for (place, Recipient { target, .. }) in recipients.iter().enumerate() {
        match addressee(api, target) {
            Ok(Addressee::Device(token)) => devices.push((place, token)),
            Ok(Addressee::Named(field, name)) => call.add(&[(place, name)], field, json::write(&name)),
            Err(rejection) => {
                call.encoded.refusals.push(Refusal { covers: vec![index(place)], rejection });
            }
        }
    }
    for chunk in devices.chunks(MOST_TOKENS) {
        let tokens: Vec<&str> = chunk.iter().map(|(_, token)| *token).collect();
        call.add(chunk, "token", json::write(&tokens));
    }
    Ok(call.encoded)
}

struct Call {
    path: String,
    draft: Draft,
    encoded: Encoded,
}

impl Call {
    fn add(&mut self, covered: &[(usize, &str)], field: &str, value: String) {
        let Draft { headers, head, tail } = &self.draft;
        let mut all = vec![("content-type".to_string(), "application/json;charset=utf-8".to_string())];
        all.extend(headers.iter().cloned());
        let message = index(self.encoded.messages.len());
        self.encoded.messages.push(Message {
            endpoint: "push".into(),
            method: Method::Post,
            headers: all,
            body: format!("{head}\"{field}\":{value}{tail}").into_bytes(),
            authenticate: true,
        });
        self.encoded.exchanges.push(Exchange {
            covers: covered.iter().map(|(place, _)| index(*place)).collect(),
            message,
            url: None,
            path: self.path.clone(),
            headers: Vec::new(),
            idempotent: false,
        });
    }
}

enum Addressee<'a> {
    Device(&'a str),
    /// The request's field, and its value.
    Named(&'static str, &'a str),
}

fn addressee<'a>(api: Api<'_>, target: &'a Target) -> Result<Addressee<'a>, Rejection> {
    match (api, target) {
        (_, Target::Device(token)) => named("device_token", token).map(Addressee::Device),
        (Api::V1(_), Target::Topic(topic)) => {
            named("topic", topic).map(|topic| Addressee::Named("topic", topic))
        }
        (Api::V1(_), Target::Condition(condition)) => {
            named("condition", condition).map(|condition| Addressee::Named("condition", condition))
        }
        (_, other) => Err(unsupported(other)),
    }
}

fn named<'a>(field: &str, name: &'a str) -> Result<&'a str, Rejection> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(invalid(field, format!("{field} must be 1 to {NAME_LIMIT} bytes of text")));
    }
    Ok(name)
}

/// An id that is fit for a path.
fn id<'a>(application: &'a Application, name: &str) -> Result<&'a str, Rejection> {
    let id = setting(application, name).ok_or_else(|| missing(name, format!("{name} is required")))?;
    match id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => Ok(id),
        false => Err(invalid(name, format!("{name} must be 1 to 64 letters and digits"))),
    }
}

fn check_size(draft: &Draft, notification: &Notification) -> Result<(), Rejection> {
    let size = draft.head.len() + draft.tail.len();
    if size <= LARGEST {
        return Ok(());
    }
    let field = match (&notification.native, &notification.data) {
        (Some(_), _) => "native",
        (None, Some(_)) => "data",
        (None, None) => "body",
    };
    Err(too_large(field, format!("the message has {size} bytes, the limit is {LARGEST}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushlet_provider::Environment;

    fn refused(credential: &str, settings: &[(&str, &str)]) -> Option<String> {
        let application = Application {
            id: "example".into(),
            environment: Environment::Production,
            settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            credential: Some(credential.into()),
        };
        Api::of(&application).err().map(|rejection| rejection.code)
    }

    #[test]
    fn ids_are_checked() {
        assert_eq!(refused("client", &[(APP_ID, "100000001")]), None);
        assert_eq!(refused(SERVICE_ACCOUNT, &[(PROJECT_ID, "388421841222012345")]), None);
        assert_eq!(refused("client", &[(PROJECT_ID, "1")]).as_deref(), Some("missing_hms_app_id"));
        assert_eq!(refused(SERVICE_ACCOUNT, &[(APP_ID, "1")]).as_deref(), Some("missing_hms_project_id"));
        for bad in ["../x", "1/2", "1 2", "1?2", &"1".repeat(65)] {
            assert_eq!(refused("client", &[(APP_ID, bad)]).as_deref(), Some("invalid_hms_app_id"), "{bad}");
        }
    }
}
