//! Rejections that name the field.

use crate::{Fault, Rejection, Target};

/// A value that is there but wrong: `invalid_{field}`.
pub fn invalid(field: &str, message: impl Into<String>) -> Rejection {
    rejection(format!("invalid_{field}"), message, Some(field))
}

/// A value that must be there and is not: `missing_{field}`.
pub fn missing(field: &str, message: impl Into<String>) -> Rejection {
    rejection(format!("missing_{field}"), message, Some(field))
}

/// A payload above the service's limit, and the field that takes the most of it.
pub fn too_large(field: &str, message: impl Into<String>) -> Rejection {
    rejection("payload_too_large", message, Some(field))
}

/// A kind of target that the provider's manifest does not list.
pub fn unsupported(target: &Target) -> Rejection {
    let name = target_field(target);
    rejection("unsupported_target", format!("this provider has no targets of the kind {name}"), Some(name))
}

/// One fault, with a code of the provider's own.
pub fn rejection(code: impl Into<String>, message: impl Into<String>, field: Option<&str>) -> Rejection {
    Rejection { code: code.into(), message: message.into(), field: field.map(Into::into), more: Vec::new() }
}

/// All faults in one rejection, the first one in front; `Ok` if there is none.
pub fn all(faults: impl IntoIterator<Item = Rejection>) -> Result<(), Rejection> {
    let mut faults = faults.into_iter();
    let Some(mut first) = faults.next() else { return Ok(()) };
    for Rejection { code, message, field, more } in faults {
        first.more.push(Fault { code, message, field });
        first.more.extend(more);
    }
    Err(first)
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
