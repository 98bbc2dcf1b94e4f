//! Counts the reasons for which pushes fail: those of the push services, and ours.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Stands for reasons beyond the bound.
const OTHER: &str = "other";
/// Different reasons of one provider that are counted apart.
const MOST_CODES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CodeLabels {
    provider: Arc<str>,
    code: String,
}

/// Counts the reasons of failures, of each provider a bounded number. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct CodeCounters {
    family: Family<CodeLabels, Counter>,
    /// How many different reasons of each provider were counted.
    known: Arc<Mutex<HashMap<Arc<str>, HashSet<String>>>>,
}

impl CodeCounters {
    pub fn family(&self) -> &Family<CodeLabels, Counter> {
        &self.family
    }

    pub fn count(&self, provider: &Arc<str>, code: &str) {
        let is_plain =
            code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let labels = |code: &str| CodeLabels { provider: provider.clone(), code: code.to_owned() };
        // Most reasons were counted before: they need no lock that excludes other threads.
        if let Some(counter) = is_plain.then(|| self.family.get(&labels(code))).flatten() {
            counter.inc();
            return;
        }
        let mut known = self.known.lock();
        let own = known.entry(provider.clone()).or_default();
        let counted =
            is_plain && (own.contains(code) || own.len() < MOST_CODES && own.insert(code.to_owned()));
        drop(known);
        self.family.get_or_create(&labels(if counted { code } else { OTHER })).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_and_plain() {
        let (codes, apns) = (CodeCounters::default(), Arc::<str>::from("apns"));
        for code in ["Unregistered", "with space", "Unregistered"] {
            codes.count(&apns, code);
        }
        (0..100).for_each(|number| codes.count(&apns, &format!("Made{number}")));
        codes.count(&Arc::from("fcm"), "UNREGISTERED");
        let count = |provider: &str, code: &str| {
            let labels = CodeLabels { provider: provider.into(), code: code.to_owned() };
            codes.family.get_or_create(&labels).get()
        };
        assert_eq!((count("apns", "Unregistered"), count("fcm", "UNREGISTERED")), (2, 1));
        assert_eq!(count("apns", "other"), 1 + 100 - (MOST_CODES as u64 - 1));
    }
}
