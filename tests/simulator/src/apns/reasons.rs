//! Apple's pairs of status and reason.

use std::sync::LazyLock;

use http::StatusCode;
use serde::Deserialize;

/// One documented error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub status: StatusCode,
    pub name: String,
}

/// Apple's two tables.
pub(super) struct Reasons {
    /// Of device pushes.
    pub device: Vec<Reason>,
    /// Of broadcasts and channel management.
    pub channel: Vec<Reason>,
}

#[derive(Deserialize)]
struct Tables {
    device: Vec<(u16, String)>,
    channel_and_broadcast: Vec<(u16, String)>,
}

/// The tables of `data/apns_reasons.json`.
pub(super) static REASONS: LazyLock<Reasons> = LazyLock::new(|| {
    let tables: Tables = serde_json::from_str(include_str!("../../data/apns_reasons.json"))
        .unwrap_or_else(|_| Tables { device: Vec::new(), channel_and_broadcast: Vec::new() });
    let table = |pairs: Vec<(u16, String)>| {
        let pair = |(status, name)| Reason { status: StatusCode::from_u16(status).unwrap_or_default(), name };
        pairs.into_iter().map(pair).collect()
    };
    Reasons { device: table(tables.device), channel: table(tables.channel_and_broadcast) }
});

impl Reasons {
    /// The status that is documented for a reason.
    pub fn status(&self, name: &str) -> StatusCode {
        let both = self.device.iter().chain(&self.channel);
        let found = both.into_iter().find(|reason| reason.name == name);
        found.map_or(StatusCode::INTERNAL_SERVER_ERROR, |reason| reason.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_complete() {
        assert_eq!(REASONS.device.len(), 32);
        assert_eq!(REASONS.channel.len(), 28);
        assert_eq!(REASONS.status("Unregistered"), StatusCode::GONE);
        assert_eq!(REASONS.status("TopicMismatch"), StatusCode::FORBIDDEN);
    }
}
