//! What the peer says, and what its ledger notes of it.

use serde_json::{Value, json};

use super::connection::Request;
use super::dice::Fate;
use crate::ledger::Ledger;

/// The body of a 200.
pub(super) fn accepted(request: &Request) -> Vec<u8> {
    if !request.multicast {
        return Vec::new();
    }
    let result = |(push, accepted): &(usize, bool)| match accepted {
        true => json!({ "message_id": format!("m{push}") }),
        false => json!({ "error": "Unavailable" }),
    };
    let success = request.pushes.iter().filter(|(_, accepted)| *accepted).count();
    let results: Vec<Value> = request.pushes.iter().map(result).collect();
    let failure = results.len() - success;
    let answer = json!({ "multicast_id": 1, "success": success, "failure": failure, "canonical_ids": 0, "results": results });
    answer.to_string().into_bytes()
}

pub(super) fn count(ledger: &Ledger, fate: Fate) {
    match fate {
        Fate::Accept { .. } | Fate::Silence { .. } => {}
        Fate::Reject { .. } => ledger.event("rejection"),
        Fate::Refuse => ledger.event("refused stream"),
        Fate::Reset { .. } | Fate::Torn => ledger.event("reset"),
    }
}
