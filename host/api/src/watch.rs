//! What watches over requests, whatever they are for: counters, and traces.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use super::metrics::Meters;
use crate::telemetry::{TraceContext, Tracer};

const TRACEPARENT: &str = "traceparent";

/// Cheap to clone.
#[derive(Clone)]
pub struct Watch {
    meters: Arc<Meters>,
    tracer: Option<Tracer>,
    /// `/metrics` is served on an address of its own.
    apart: bool,
    started: Instant,
}

impl Watch {
    pub fn new(tracer: Option<Tracer>, apart: bool) -> Self {
        Self { meters: Arc::new(Meters::new()), tracer, apart, started: Instant::now() }
    }

    pub(super) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(super) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn is_apart(&self) -> bool {
        self.apart
    }

    /// The caller's context and ours; None: nobody traces.
    pub(super) fn trace(&self, headers: &HeaderMap) -> Option<(Option<TraceContext>, TraceContext)> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let incoming = match (all.next(), all.next()) {
            (Some(one), None) => one.to_str().ok().and_then(TraceContext::parse),
            _ => None,
        };
        let own = match &self.tracer {
            Some(tracer) => tracer.context(incoming),
            None => incoming?.child(),
        };
        Some((incoming, own))
    }

    /// Spans that were exported and dropped, if any are.
    pub(super) fn spans(&self) -> Option<(u64, u64)> {
        let counts = self.tracer.as_ref()?.counts();
        Some((counts.exported.load(Ordering::Relaxed), counts.dropped.load(Ordering::Relaxed)))
    }
}
