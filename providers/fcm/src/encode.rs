//! Notifications to requests, one for each target.

use crate::manifest::PROJECT;
use crate::message;
use pushlet_provider::input::{Options, invalid, missing, setting, too_large, unsupported};
use pushlet_provider::json::{self, Object};
use pushlet_provider::reply::{self, index};
use pushlet_provider::{
    Application, Context, Encoded, Exchange, Message, Method, Notification, Recipient, Refusal, Rejection,
    Target,
};
use serde_json::Value;

/// Bytes of data at most, keys and values, to a device and to a topic.
const DEVICE_LIMIT: usize = 4096;
const TOPIC_LIMIT: usize = 2048;
/// Bytes of a token or condition at most. Google names no limit; tokens are below 300.
const NAME_LIMIT: usize = 4096;

/// The project of the application, fit for a path.
pub fn project(application: &Application) -> Result<&str, Rejection> {
    let project =
        setting(application, PROJECT).ok_or_else(|| missing(PROJECT, format!("{PROJECT} is required")))?;
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte);
    // A dot alone would be a step in the path.
    let has_empty_label = project.split('.').any(str::is_empty);
    if has_empty_label || project.len() > 100 || !project.bytes().all(sound) {
        return Err(invalid(PROJECT, format!("{PROJECT} must be a project id or number")));
    }
    Ok(project)
}

/// Encodes a notification for devices, topics and conditions.
pub fn encode(
    context: &Context,
    application: &Application,
    notification: &Notification,
    recipients: &[Recipient],
) -> Result<Encoded, Rejection> {
    let path = format!("/v1/projects/{}/messages:send", project(application)?);
    let options = Options::of(notification);
    let call = Call::new(message::build(notification, options, context.now)?, options)?;
    let mut encoded = reply::empty();
    for (place, Recipient { target, .. }) in recipients.iter().enumerate() {
        let covers = vec![index(place)];
        match call.body(target) {
            Ok(body) => {
                let message = index(encoded.messages.len());
                encoded.messages.push(post(body));
                encoded.exchanges.push(Exchange {
                    covers,
                    message,
                    url: None,
                    path: path.clone(),
                    headers: Vec::new(),
                    idempotent: false,
                });
            }
            Err(rejection) => encoded.refusals.push(Refusal { covers, rejection }),
        }
    }
    Ok(encoded)
}

/// What all requests of one encoding have in common.
struct Call {
    /// The message up to where its target goes.
    head: String,
    /// What comes after the target.
    tail: &'static str,
    /// The bytes of its data.
    weight: usize,
    /// Are the device tokens installation ids?
    installations: bool,
}

impl Call {
    fn new(message: Object, options: Options) -> Result<Self, Rejection> {
        let weight = message.get("data").and_then(Value::as_object).map_or(0, json::weight);
        let mut head = format!("{{\"message\":{}", json::write(&message));
        head.pop();
        if !head.ends_with('{') {
            head.push(',');
        }
        let dry = options.boolean("validate_only")?.unwrap_or(false)
            || options.boolean("dry_run")?.unwrap_or(false);
        let tail = if dry { "},\"validateOnly\":true}" } else { "}}" };
        Ok(Self { head, tail, weight, installations: options.boolean("fid")?.unwrap_or(false) })
    }

    fn body(&self, target: &Target) -> Result<Vec<u8>, Rejection> {
        let (field, name, limit) = match target {
            Target::Device(id) if self.installations => ("fid", named("device_token", id)?, DEVICE_LIMIT),
            Target::Device(token) => ("token", named("device_token", token)?, DEVICE_LIMIT),
            Target::Topic(topic) => ("topic", topic_name(topic)?, TOPIC_LIMIT),
            Target::Condition(condition) => ("condition", named("condition", condition)?, TOPIC_LIMIT),
            other => return Err(unsupported(other)),
        };
        if self.weight > limit {
            return Err(too_large("data", format!("data has {} bytes, the limit is {limit}", self.weight)));
        }
        Ok(format!("{}\"{field}\":{}{}", self.head, json::write(&name), self.tail).into_bytes())
    }
}

fn post(body: Vec<u8>) -> Message {
    Message {
        endpoint: "send".into(),
        method: Method::Post,
        headers: vec![("content-type".into(), "application/json".into())],
        body,
        authenticate: true,
    }
}

/// A name of a size that Google may take.
pub fn named<'a>(field: &str, name: &'a str) -> Result<&'a str, Rejection> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(invalid(field, format!("{field} must be 1 to {NAME_LIMIT} bytes of text")));
    }
    Ok(name)
}

/// The bare name of a topic; legacy callers put `/topics/` in front.
pub fn topic_name(topic: &str) -> Result<&str, Rejection> {
    let name = topic.strip_prefix("/topics/").unwrap_or(topic);
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    if name.is_empty() || name.len() > 900 || !name.bytes().all(letter) {
        return Err(invalid("topic", "topic must be 1 to 900 letters, digits and -_.~%"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushlet_provider::Environment;

    fn refused(project: &str) -> Option<String> {
        let application = Application {
            id: "example".into(),
            environment: Environment::Production,
            settings: vec![(PROJECT.into(), project.into())],
            credential: None,
        };
        super::project(&application).err().map(|rejection| rejection.code)
    }

    #[test]
    fn the_project_is_checked() {
        for good in ["example-project", "1234567890", "example.com:project", &"p".repeat(100)] {
            assert_eq!(refused(good), None, "{good}");
        }
        assert_eq!(refused("").as_deref(), Some("missing_fcm_project_id"));
        for bad in ["a/b", "a b", "../x", "a?b", ".", "..", &"p".repeat(101)] {
            assert_eq!(refused(bad).as_deref(), Some("invalid_fcm_project_id"), "{bad}");
        }
    }
}
