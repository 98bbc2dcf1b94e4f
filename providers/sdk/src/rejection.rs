//! Rejections that name the field.

use crate::{Rejection, Target};

/// A value that is there but wrong: `invalid_{field}`.
pub fn invalid(field: &str, message: impl Into<String>) -> Rejection {
    Rejection { code: format!("invalid_{field}"), message: message.into(), field: Some(field.into()) }
}

/// A value that must be there and is not: `missing_{field}`.
pub fn missing(field: &str, message: impl Into<String>) -> Rejection {
    Rejection { code: format!("missing_{field}"), message: message.into(), field: Some(field.into()) }
}

/// A payload above the service's limit, and the field that takes the most of it.
pub fn too_large(field: &str, message: impl Into<String>) -> Rejection {
    Rejection { code: "payload_too_large".into(), message: message.into(), field: Some(field.into()) }
}

/// A kind of target that the provider's manifest does not list.
pub fn unsupported(target: &Target) -> Rejection {
    let name = target_field(target);
    Rejection {
        code: "unsupported_target".into(),
        message: format!("this provider has no targets of the kind {name}"),
        field: Some(name.into()),
    }
}

/// The field in which a caller gives a target of this kind.
fn target_field(target: &Target) -> &'static str {
    match target {
        Target::Device(_) => "device_token",
        Target::Topic(_) => "topic",
        Target::Condition(_) => "condition",
        Target::Channel(_) => "channel",
        Target::Url(_) => "url",
    }
}
