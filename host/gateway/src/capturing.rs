//! Which sends are captured, and who switches that on and reads it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::capture::{Capture, CapturedSender, LineCaptures, MOST_CAPTURED_TARGETS};
use crate::delivery::Delivery;
use crate::gateway::{Gateway, provider_of};
use crate::standing_capture::{BatchCaptures, CaptureSettings, CaptureState, StandingBatch, StandingCapture};
use pushlet_model::contract::Notification;
use pushlet_model::error::{Error, Kind};
use pushlet_model::tenant::TenantId;

impl Gateway {
    /// Switches the capture of a provider's sends on. Records of one before are dropped.
    pub async fn start_capture(
        &self,
        tenant: &TenantId,
        provider: &str,
        settings: CaptureSettings,
    ) -> Result<CaptureState, Error> {
        let providers = self.providers(tenant, provider).await?;
        if provider_of(provider, &providers).map_err(|_| not_there(provider))?.speaks_stream() {
            let message =
                format!("{provider} speaks over a byte stream; only requests and their answers are captured");
            return Err(Error::new(Kind::Invalid, "capture_unsupported", message));
        }
        let account = self.0.tenants.get(tenant)?.account.clone();
        let capture = Arc::new(StandingCapture::new(settings, account));
        self.0.captures.set(tenant, provider, &capture);
        Ok(capture.state())
    }

    /// Returns the capture of a provider, and what it has kept.
    pub fn capture(&self, tenant: &TenantId, provider: &str) -> Result<CaptureState, Error> {
        let capture = self.0.captures.get(tenant, provider);
        capture.map(|capture| capture.state()).ok_or_else(|| {
            let message = format!("no capture of {provider} was switched on, or its records are gone");
            Error::new(Kind::NotFound, "capture_not_found", message)
        })
    }

    /// Switches a capture off, and drops its records; returns what it was.
    pub fn stop_capture(&self, tenant: &TenantId, provider: &str) -> Result<CaptureState, Error> {
        let ended = self.capture(tenant, provider)?;
        self.forget_capture(tenant, provider);
        Ok(ended)
    }

    /// The same for a provider that is removed, whether there is a capture or not.
    pub fn forget_capture(&self, tenant: &TenantId, provider: &str) {
        self.0.captures.remove(tenant, provider);
    }
}

fn not_there(provider: &str) -> Error {
    Error::new(Kind::NotFound, "provider_not_found", format!("there is no provider {provider}"))
}

impl Delivery {
    /// Returns the capture that its tenant has switched on, if it is one for this delivery.
    pub(crate) fn standing_capture(&self) -> Option<Arc<StandingCapture>> {
        let capture = self.gateway.0.captures.get(&self.tenant, &self.provider.manifest().name)?;
        let is_wanted = !self.purpose.validate_only && capture.is_of(&self.application.record.id);
        (is_wanted && capture.is_active()).then_some(capture)
    }

    /// Returns what keeps the sends of a batch.
    pub(crate) fn captures(&self, notification: &Arc<Notification>, targets: usize) -> BatchCaptures {
        let mut all: Vec<Arc<Capture>> = self.purpose.capture.iter().cloned().collect();
        let capture = |is_of_line| Arc::new(Capture::new(is_of_line, self.sender(), notification.clone()));
        if targets == 1 && self.purpose.lines.as_ref().is_some_and(LineCaptures::take) {
            all.push(capture(true));
        }
        if targets > MOST_CAPTURED_TARGETS {
            return BatchCaptures { all, standing: None };
        }
        let standing = self.standing_capture().map(|standing| {
            let capture = capture(false);
            all.push(capture.clone());
            StandingBatch { standing, capture, results: Mutex::default() }
        });
        BatchCaptures { all, standing }
    }

    /// Returns how many targets of a batch can be captured; None: nothing is.
    pub(crate) fn most_captured(&self) -> Option<usize> {
        if self.purpose.lines.as_ref().is_some_and(LineCaptures::are_left) {
            return Some(1);
        }
        self.standing_capture().map(|_| MOST_CAPTURED_TARGETS)
    }

    /// Returns what a record says of this delivery.
    pub(crate) fn sender(&self) -> Arc<CapturedSender> {
        Arc::new(CapturedSender {
            provider: self.provider.manifest().name.clone(),
            digest: self.provider.digest().to_owned(),
            application: self.application.record.clone(),
            request_id: self.purpose.request_id.clone(),
        })
    }
}
