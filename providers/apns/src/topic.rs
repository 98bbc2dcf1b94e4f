//! The `apns-topic` header and the application's settings.

use crate::push_type::PushType;
use pushlet_provider::input::{Options, invalid, missing, setting};
use pushlet_provider::{Application, Rejection};

/// The credential that is a TLS client certificate.
pub const CERTIFICATE: &str = "certificate";
/// The credential that is a token signing key.
pub const TOKEN: &str = "token";

/// Key and team ids have ten characters; a topic is a reverse domain name.
pub fn check_application(application: &Application) -> Result<(), Rejection> {
    if application.credential.as_deref() == Some(TOKEN) {
        for name in ["apns_key_id", "apns_team_id"] {
            let id = setting(application, name)
                .ok_or_else(|| missing(name, format!("{name} is required with a token signing key")))?;
            if id.len() != 10 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(invalid(name, format!("{name} must be Apple's id of ten letters and digits")));
            }
        }
    }
    setting(application, "apns_topic").map_or(Ok(()), |topic| check("apns_topic", topic))
}

/// The topic that the option or the setting names, without regard to its suffix.
pub fn base(application: &Application, options: Options) -> Result<Option<String>, Rejection> {
    match options.text("topic")? {
        Some(topic) => check("topic", &topic).map(|()| Some(topic)),
        None => match setting(application, "apns_topic") {
            Some(topic) => check("apns_topic", topic).map(|()| Some(topic.to_string())),
            None => Ok(None),
        },
    }
}

/// The topic of a push of this type: the suffix is added if it is missing. None where the certificate tells it.
pub fn full(
    application: &Application,
    base: Option<String>,
    kind: PushType,
) -> Result<Option<String>, Rejection> {
    let certified = application.credential.as_deref() == Some(CERTIFICATE);
    // Apple serves these to provider tokens only, and answers a certificate with TopicDisallowed.
    if certified && matches!(kind, PushType::Location | PushType::LiveActivity) {
        let message = format!("{} needs a token signing key (apns_p8), not a certificate", kind.name());
        return Err(invalid("push_type", message));
    }
    let covered: Vec<&str> = match setting(application, "apns_certificate_topics") {
        Some(topics) if certified => topics.split(',').map(str::trim).collect(),
        _ => Vec::new(),
    };
    let Some(mut topic) = base else {
        let told = certified && covered.len() <= 1 && kind.suffix().is_empty();
        return if told {
            Ok(None)
        } else {
            Err(missing("topic", "topic, or the setting apns_topic, is required"))
        };
    };
    if !topic.ends_with(kind.suffix()) {
        topic.push_str(kind.suffix());
    }
    if !covered.is_empty() && !covered.contains(&topic.as_str()) {
        return Err(invalid("topic", format!("the certificate does not cover the topic {topic}")));
    }
    Ok(Some(topic))
}

/// Is it the type of a Wallet pass? Those have no push type of their own.
pub fn is_pass(topic: &str) -> bool {
    topic.starts_with("pass.")
}

/// The bundle id that a broadcast names in its path.
pub fn bundle(base: Option<&str>) -> Result<String, Rejection> {
    let topic = base.ok_or_else(|| missing("topic", "topic, or the setting apns_topic, is required"))?;
    let bundle = topic.strip_suffix(PushType::LiveActivity.suffix()).unwrap_or(topic);
    Ok(bundle.to_string())
}

fn check(field: &str, topic: &str) -> Result<(), Rejection> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // A dot alone would be a step in the path of a broadcast.
    let has_empty_label = topic.split('.').any(str::is_empty);
    if has_empty_label || topic.len() > 255 || !topic.bytes().all(sound) {
        return Err(invalid(
            field,
            format!("{field} must be a bundle id: letters, digits, dots and hyphens"),
        ));
    }
    Ok(())
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
        check_application(&application).err().map(|rejection| rejection.code)
    }

    #[test]
    fn settings_are_checked() {
        let (key, team) = (("apns_key_id", "ABC123DEFG"), ("apns_team_id", "DEF123GHIJ"));
        assert_eq!(refused(TOKEN, &[key, team]), None);
        assert_eq!(refused(TOKEN, &[team]).as_deref(), Some("missing_apns_key_id"));
        assert_eq!(refused(TOKEN, &[key, ("apns_team_id", "")]).as_deref(), Some("missing_apns_team_id"));
        assert_eq!(refused(TOKEN, &[("apns_key_id", "ABC"), team]).as_deref(), Some("invalid_apns_key_id"));
        assert_eq!(refused(CERTIFICATE, &[]), None);
        for topic in ["a b", ".", "..", "com.example.", ".push-type.liveactivity"] {
            assert_eq!(refused(CERTIFICATE, &[("apns_topic", topic)]).as_deref(), Some("invalid_apns_topic"));
        }
    }
}
