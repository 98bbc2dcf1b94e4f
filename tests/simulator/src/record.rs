//! What arrived: a bounded list of requests, and counts of all of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Environment;
use crate::connections::ClientCertificate;

/// All recorded requests together may hold this many bytes; the oldest go first.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The push service that a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Apple: device pushes, broadcasts, channel management.
    Apns,
    /// FCM HTTP v1.
    Fcm,
    /// Google's OAuth token endpoint, and Huawei's.
    Oauth,
    /// Legacy GCM.
    Gcm,
    /// Huawei Push Kit.
    Hms,
    /// The Web Push service.
    Webpush,
}

impl Service {
    /// All services, in the order of [`Counts`].
    pub const ALL: [Service; 6] =
        [Service::Apns, Service::Fcm, Service::Oauth, Service::Gcm, Service::Hms, Service::Webpush];
}

/// One request and what was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Counts from 1 over all services since the start.
    pub number: u64,
    /// When it was answered, in milliseconds since 1970.
    pub at_ms: i64,
    /// The service that it was for.
    pub service: Service,
    /// The HTTP method.
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// Header names in lower case and values, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body; bytes that are not UTF-8 are replaced. Of Web Push what the browser decrypted.
    pub body: String,
    /// The device token, FID, first registration id, or id of the subscription.
    pub token: Option<String>,
    /// The APNs topic or bundle id, or the FCM topic or condition.
    pub topic: Option<String>,
    /// Which connection it came on; see [`crate::ConnectionInfo::number`].
    pub connection: u64,
    /// Apple's environment that it was sent to; none for Google.
    pub environment: Option<Environment>,
    /// The HTTP/2 stream, where it is known (APNs).
    pub stream: Option<u32>,
    /// The certificate that the client presented on the connection.
    #[serde(serialize_with = "crate::connections::shared_certificate")]
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub answer: String,
    /// How many devices or topics the answer says the message goes to.
    pub delivered: u32,
}

impl Received {
    /// The value of the first header called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 48).sum();
        headers + self.body.len() + self.path.len() + self.answer.len() + 256
    }
}

/// Requests of one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ServiceCounts {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that were answered with a 2xx status.
    pub accepted: u64,
    /// Devices and topics that a message was accepted for (neither dry runs nor validations).
    pub delivered: u64,
}

/// Requests of every service since the start or the last clearing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Device pushes, broadcasts and channel management.
    pub apns: ServiceCounts,
    /// FCM HTTP v1.
    pub fcm: ServiceCounts,
    /// Token requests.
    pub oauth: ServiceCounts,
    /// Legacy GCM.
    pub gcm: ServiceCounts,
    /// Huawei Push Kit.
    pub hms: ServiceCounts,
    /// The Web Push service.
    pub webpush: ServiceCounts,
}

#[derive(Default)]
struct Counter {
    requests: AtomicU64,
    accepted: AtomicU64,
    delivered: AtomicU64,
}

#[derive(Default)]
struct Kept {
    requests: VecDeque<Received>,
    bytes: usize,
}

/// Counts everything, keeps the newest.
pub(crate) struct Recorder {
    keep: usize,
    numbers: AtomicU64,
    counters: [Counter; 6],
    kept: Mutex<Kept>,
}

impl Recorder {
    pub fn new(keep: usize) -> Recorder {
        Recorder { keep, numbers: AtomicU64::new(0), counters: Default::default(), kept: Mutex::default() }
    }

    /// Counts one answered request and keeps what `detail` builds, which is not called where nothing is kept.
    pub fn record(&self, service: Service, status: u16, delivered: u32, detail: impl FnOnce() -> Received) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let counter = self.counter(service);
        counter.requests.fetch_add(1, Ordering::Relaxed);
        counter.delivered.fetch_add(u64::from(delivered), Ordering::Relaxed);
        if (200..300).contains(&status) {
            counter.accepted.fetch_add(1, Ordering::Relaxed);
        }
        if self.keep == 0 {
            return;
        }
        let received = Received { number, service, status, delivered, ..detail() };
        let mut kept = self.lock();
        kept.bytes += received.weight();
        kept.requests.push_back(received);
        while kept.requests.len() > self.keep || (kept.bytes > MAX_BYTES && kept.requests.len() > 1) {
            let Some(oldest) = kept.requests.pop_front() else { break };
            kept.bytes = kept.bytes.saturating_sub(oldest.weight());
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.lock().requests.iter().cloned().collect()
    }

    pub fn counts(&self) -> Counts {
        let of = |service| {
            let counter = self.counter(service);
            ServiceCounts {
                requests: counter.requests.load(Ordering::Relaxed),
                accepted: counter.accepted.load(Ordering::Relaxed),
                delivered: counter.delivered.load(Ordering::Relaxed),
            }
        };
        Counts {
            apns: of(Service::Apns),
            fcm: of(Service::Fcm),
            oauth: of(Service::Oauth),
            gcm: of(Service::Gcm),
            hms: of(Service::Hms),
            webpush: of(Service::Webpush),
        }
    }

    pub fn clear(&self) {
        *self.lock() = Kept::default();
        for counter in &self.counters {
            counter.requests.store(0, Ordering::Relaxed);
            counter.accepted.store(0, Ordering::Relaxed);
            counter.delivered.store(0, Ordering::Relaxed);
        }
    }

    fn counter(&self, service: Service) -> &Counter {
        let [apns, fcm, oauth, gcm, hms, webpush] = &self.counters;
        match service {
            Service::Apns => apns,
            Service::Fcm => fcm,
            Service::Oauth => oauth,
            Service::Gcm => gcm,
            Service::Hms => hms,
            Service::Webpush => webpush,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Received {
        Received {
            number: 0,
            at_ms: 0,
            service: Service::Fcm,
            method: "POST".into(),
            path: "/".into(),
            headers: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            body: body.into(),
            token: None,
            topic: None,
            connection: 1,
            environment: None,
            stream: None,
            client_certificate: None,
            status: 0,
            answer: String::new(),
            delivered: 0,
        }
    }

    #[test]
    fn the_newest_are_kept_and_all_are_counted() {
        let recorder = Recorder::new(2);
        for body in ["one", "two", "three"] {
            recorder.record(Service::Gcm, 200, 5, || request(body));
        }
        recorder.record(Service::Apns, 410, 0, || request("four"));
        let bodies: Vec<String> = recorder.received().into_iter().map(|r| r.body).collect();
        assert_eq!(bodies, ["three", "four"]);
        assert_eq!(recorder.counts().gcm, ServiceCounts { requests: 3, accepted: 3, delivered: 15 });
        assert_eq!(recorder.counts().apns, ServiceCounts { requests: 1, accepted: 0, delivered: 0 });
        recorder.clear();
        assert!(recorder.received().is_empty());
        assert_eq!(recorder.counts(), Counts::default());
    }

    #[test]
    fn a_keep_of_zero_builds_no_record() {
        let recorder = Recorder::new(0);
        recorder.record(Service::Apns, 200, 1, || panic!("built for nothing"));
        assert_eq!(recorder.counts().apns.requests, 1);
    }

    #[test]
    fn the_total_size_is_bounded() {
        let recorder = Recorder::new(1000);
        for _ in 0..10 {
            recorder.record(Service::Gcm, 200, 1, || request(&"x".repeat(MAX_BYTES / 4)));
        }
        assert_eq!(recorder.received().len(), 3);
        assert_eq!(recorder.counts().gcm.requests, 10);
    }
}
