//! Device tokens and bundle ids that ask for an error.

use std::fmt::Write;

use super::reasons::{REASONS, Reason};

/// The error that a device token asks for.
pub(super) fn of_token(token: &str) -> Option<&'static Reason> {
    if token.starts_with("dead") {
        return REASONS.device.iter().find(|reason| reason.name == "Unregistered");
    }
    REASONS.device.get(index(token.strip_prefix("bad0")?)?)
}

/// The error that a bundle id asks for.
pub(super) fn of_bundle(bundle: &str) -> Option<&'static Reason> {
    let (_, last) = bundle.rsplit_once(".bad1")?;
    REASONS.channel.get(index(last).filter(|_| last.len() == 2)?)
}

/// The table, for people.
pub(crate) fn help() -> String {
    let mut text = String::from("Device tokens that start with these ask for:\n  dead    410 Unregistered\n");
    for (index, reason) in REASONS.device.iter().enumerate() {
        let _ = writeln!(text, "  bad0{index:02}  {} {}", reason.status.as_u16(), reason.name);
    }
    text.push_str("Bundle ids of broadcasts and channels that end in these ask for (provider token only):\n");
    for (index, reason) in REASONS.channel.iter().enumerate() {
        let _ = writeln!(text, "  .bad1{index:02}  {} {}", reason.status.as_u16(), reason.name);
    }
    text
}

/// Two decimal digits.
fn index(rest: &str) -> Option<usize> {
    let digits = rest.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_bundles_name_their_reason() {
        let token = |token| of_token(token).map(|reason| reason.name.as_str());
        assert_eq!(token("dead01"), Some("Unregistered"));
        assert_eq!(token("bad000ff"), Some("BadCollapseId"));
        assert_eq!(token("bad031"), Some("Shutdown"));
        assert_eq!(token("bad032"), None);
        assert_eq!(token("bad0a1"), None);
        assert_eq!(token("ab"), None);
        let bundle = |bundle| of_bundle(bundle).map(|reason| reason.name.as_str());
        assert_eq!(bundle("com.example.bad100"), Some("FeatureNotEnabled"));
        assert_eq!(bundle("com.example.bad126"), Some("Service Unavailable"));
        assert_eq!(bundle("com.example.bad128"), None);
        assert_eq!(bundle("com.example.bad1000"), None);
    }
}
