//! Keys of records as subjects, and back. They are those of a key-value bucket, so that NATS's own tools show them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::storage::{RecordKey, Table};

/// The stream of the bucket `pushlet`.
pub(super) const STREAM: &str = "KV_pushlet";
pub(super) const SUBJECTS: &str = "$KV.pushlet.>";
/// Where a message is published to test whether the registry can be written. It is no record.
pub(super) const PROBE: &str = "$KV.pushlet.probe";
const PREFIX: &str = "$KV.pushlet.";
/// An empty part: a token of a subject cannot be empty.
const EMPTY: &str = "=";

/// Returns the subject of a record. Parts may have any character, so they are encoded.
pub(super) fn subject(table: Table, key: &RecordKey) -> Option<String> {
    let mut subject = format!("{PREFIX}{}", table.name());
    for part in key.all_parts()? {
        subject.push('.');
        match part.is_empty() {
            true => subject.push_str(EMPTY),
            false => URL_SAFE_NO_PAD.encode_string(part, &mut subject),
        }
    }
    Some(subject)
}

/// Returns the record of a subject; None: it is of something else.
pub(super) fn record(subject: &str) -> Option<(Table, RecordKey)> {
    let mut tokens = subject.strip_prefix(PREFIX)?.split('.');
    let name = tokens.next()?;
    let table = Table::ALL.into_iter().find(|table| table.name() == name && table.is_logged())?;
    let decode = |token: &str| match token {
        EMPTY => Some(String::new()),
        token => String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok(),
    };
    let parts = tokens.map(decode).collect::<Option<Vec<_>>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    (!parts.is_empty()).then(|| (table, RecordKey::new(&parts)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_subject_of_its_own_and_comes_back() {
        let ids = ["", "acme", "a.b", "*", ">", "a b\tc", "\0\u{1}", "ü", "=", "probe"];
        let mut seen = std::collections::HashSet::new();
        for one in ids {
            for other in ids {
                let key = RecordKey::new(&[one, other]);
                let subject = subject(Table::Applications, &key).unwrap();
                assert!(
                    subject.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>".contains(&byte)),
                    "{subject}"
                );
                assert_eq!(record(&subject), Some((Table::Applications, key)));
                assert!(seen.insert(subject));
            }
        }
        for other in [PROBE, "$KV.pushlet.tenants", "$KV.pushlet.unheard.YQ", "$KV.pushlet.tenants.!", "x.y"]
        {
            assert_eq!(record(other), None, "{other}");
        }
    }
}
