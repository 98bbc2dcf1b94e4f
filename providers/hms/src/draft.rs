//! What a message of either API is made of.

use crate::manifest::TITLE;
use pushlet_provider::input::{invalid, setting};
use pushlet_provider::json::Object;
use pushlet_provider::{Alert, Application, Notification, Rejection};
use serde_json::Value;

/// Seconds that Huawei keeps a message at most: 15 days.
const LONGEST_TTL: u32 = 1_296_000;

/// A request that lacks its targets.
pub struct Draft {
    /// Headers beside the content type.
    pub headers: Vec<(String, String)>,
    /// The body up to where its targets go: it ends within an object, behind a comma or the opening brace.
    pub head: String,
    /// The body behind its targets.
    pub tail: String,
}

/// The time to live in seconds.
pub fn time_to_live(notification: &Notification) -> Result<Option<u32>, Rejection> {
    match notification.time_to_live {
        Some(seconds) if seconds > LONGEST_TTL => {
            Err(invalid("ttl", format!("ttl must be at most {LONGEST_TTL} seconds, 15 days")))
        }
        other => Ok(other),
    }
}

/// The title; a notification with a body alone has that of the application.
pub fn title<'a>(application: &'a Application, alert: &'a Alert) -> Option<&'a str> {
    let has_body = alert.body.is_some() || alert.body_localized.is_some();
    let otherwise = || setting(application, TITLE).filter(|_| has_body && alert.title_localized.is_none());
    alert.title.as_deref().or_else(otherwise)
}

/// The number on the app's icon.
pub fn badge(notification: &Notification) -> Result<Option<u32>, Rejection> {
    match notification.badge {
        Some(badge) if badge > 99 => Err(invalid("badge", "badge must be at most 99 for Huawei")),
        other => Ok(other),
    }
}

/// The collapse key as Huawei takes it: a whole number from -1 to 100.
pub fn collapse_number(notification: &Notification) -> Option<i64> {
    let number: i64 = notification.collapse_key.as_deref()?.parse().ok()?;
    (-1..=100).contains(&number).then_some(number)
}

/// Puts a value into an object, if there is one.
pub fn insert(object: &mut Object, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(name.into(), value.into());
    }
}
