//! The instances of one component for one tenant, and the calls through them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::breaker::{BreakerChange, CallVerdict, QuarantineBreaker};
use super::call_log::{self, GuestLog};
use super::check::{self, PreparedRequests};
use super::error::ProviderError;
use super::guest::GuestState;
use super::instance::{IdleInstances, WorldFunctions};
use super::limits::{CallBounds, ComponentTrust, InstanceIsolation, TenantQuota};
use super::management::CollectionManager;
use super::sandbox::Sandbox;
use super::usage::ProviderUsage;
use pushlet_model::contract::codec::{self, Answer, Encoded, Reply};
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::contract::{Application, Context, Notification, Recipient, Rejection};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::MemoryReservation;

/// Targets of a call that is not made smaller because of its time alone.
const SMALL_CALL: usize = 50;

/// One component for one tenant.
///
/// `check_application`, `encode` and `decode` run on the calling thread to their end and are never held
/// across an await, so no more instances are in use at once than there are threads that call. From async
/// code, call them inside [`Instances::run`].
pub struct Instances {
    pub(super) loaded: Arc<LoadedComponent>,
    tenant: TenantId,
    shelf: Arc<IdleInstances>,
    /// What the tenant may use; None: the component is built in.
    share: Option<TenantQuota>,
    breaker: QuarantineBreaker,
    usage: Arc<ProviderUsage>,
    pub(super) log: Arc<GuestLog>,
    failures: AtomicU64,
    /// Targets of one call of `encode`, as its time allows.
    call_size: AtomicUsize,
}

impl Instances {
    pub(super) fn new(loaded: Arc<LoadedComponent>, tenant: &TenantId) -> Self {
        let sandbox = &loaded.sandbox;
        let name = &loaded.manifest.name;
        let (share, usage) = match loaded.trust {
            ComponentTrust::BuiltIn => (None, sandbox.usages.of_built_in(name)),
            ComponentTrust::Uploaded => {
                (Some(sandbox.shares.of(tenant)), sandbox.usages.of_uploaded(tenant, name))
            }
        };
        let breaker = QuarantineBreaker::new(sandbox.limits.breaker);
        if let Some((remaining, pause)) = sandbox.imposed.of(tenant, name, &loaded.digest) {
            breaker.impose(remaining, pause);
        }
        Self {
            tenant: tenant.clone(),
            shelf: sandbox.idle.shelf(share.as_ref().map(|share| share.account.clone())),
            share,
            breaker,
            usage,
            log: Arc::default(),
            failures: AtomicU64::new(0),
            call_size: AtomicUsize::new(loaded.manifest.targets_per_call as usize),
            loaded,
        }
    }

    /// Returns what the guest printed, and where it trapped. Only its tenant may see it.
    pub fn log(&self) -> &Arc<GuestLog> {
        &self.log
    }

    /// Returns how many calls ended in a trap, a time-out or a limit, or with an answer that breaks the contract.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns how long the component is still quarantined, if it is.
    pub fn quarantined(&self) -> Option<Duration> {
        self.breaker.remaining()
    }

    /// Ends a quarantine before its time.
    pub fn release(&self) {
        if self.breaker.reset() {
            self.tell(None);
        }
    }

    /// Goes by what another server of the fleet says: for how long it is quarantined yet, and how long the pause was.
    pub(super) fn impose(&self, quarantine: Option<(Duration, Duration)>) {
        match quarantine {
            Some((remaining, pause)) => self.breaker.impose(remaining, pause),
            None => drop(self.breaker.reset()),
        }
    }

    /// Says that the component is quarantined for so long; None: it no longer is.
    fn tell(&self, pause: Option<Duration>) {
        let LoadedComponent { sandbox, manifest, digest, .. } = &*self.loaded;
        sandbox.tell_quarantine(&self.tenant, &manifest.name, digest, pause);
    }

    /// Returns how many warm instances wait for a call.
    pub fn idle(&self) -> usize {
        self.shelf.len()
    }

    /// Runs `call`, which calls this component, where it cannot keep others waiting. A built-in component is
    /// called at once on this thread. For an uploaded one the call waits for the tenant's turn.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        self.run_for(None, call).await
    }

    /// The same for an HTTP request of this id, which stands in the log then.
    pub async fn run_for<T: Send + 'static>(
        self: &Arc<Self>,
        request: Option<Arc<str>>,
        call: impl FnOnce(&Self) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let call = move |instances: &Self| call_log::for_request(request, || call(instances));
        let Some(share) = self.share.clone() else { return call(self) };
        if let Some(retry_after) = self.quarantined() {
            return Err(ProviderError::Quarantined { retry_after });
        }
        let instances = self.clone();
        share.run(move || call(&instances)).await
    }

    /// Checks the settings of this application. `Ok(Err(…))`: why they are refused.
    pub fn check_application(
        &self,
        context: &Context,
        application: &Application,
    ) -> Result<Result<(), Rejection>, ProviderError> {
        let answer = self.recorded("check-application", &application.id, || match &self.loaded.functions {
            WorldFunctions::Stream(_) => self.check_stream_application(context, application),
            WorldFunctions::Http(_) => self.call(context, 1, async |codec, store| {
                codec.call_check_application(store, application).await
            }),
        });
        answer.map(|answer| answer.map_err(check::rejection))
    }

    /// Returns the requests that deliver `notification` to `recipients`, checked.
    pub fn encode(
        &self,
        context: &Context,
        application: &Application,
        notification: &Notification,
        recipients: &[Recipient],
    ) -> Result<PreparedRequests, ProviderError> {
        #[cfg(feature = "native")]
        if let Some(codec) = self.loaded.native {
            let encoded =
                self.guarded(|| Ok(codec.encode(context, application, notification, recipients)))?;
            let (manifest, environment) = (&self.loaded.manifest, application.environment);
            return self.checked(check::encoded(manifest, environment, recipients.len(), encoded));
        }
        self.recorded("encode", &application.id, || {
            let start = Instant::now();
            let encoded = self.call(context, recipients.len(), async |codec, store| {
                codec.call_encode(store, context, application, notification, recipients).await
            });
            self.adapt_call_size(recipients.len(), start.elapsed(), &encoded);
            let (manifest, environment) = (&self.loaded.manifest, application.environment);
            self.checked(check::encoded(manifest, environment, recipients.len(), encoded?))
        })
    }

    /// Returns how many targets one call of `encode` should be given: as many as the manifest says, and fewer if its
    /// calls take long.
    pub fn targets_per_call(&self) -> usize {
        self.call_size.load(Ordering::Relaxed)
    }

    /// Halves the next calls of a component that used much of its time, and doubles them again once it is fast. The
    /// time may be that of a busy machine, so only a time-out leads to very small calls.
    fn adapt_call_size(&self, targets: usize, took: Duration, result: &Result<Encoded, ProviderError>) {
        let limit = self.loaded.sandbox.limits.call_timeout;
        let (size, most) = (self.targets_per_call(), self.loaded.manifest.targets_per_call as usize);
        let next = match result {
            Err(ProviderError::TimedOut) => (targets / 8).max(1),
            _ if took > limit / 2 && targets > SMALL_CALL => (targets / 2).max(SMALL_CALL),
            _ if took < limit / 16 && targets >= size && size < most => (size * 2).min(most),
            _ => return,
        };
        self.call_size.store(next, Ordering::Relaxed);
    }

    /// Returns the outcomes of the targets of each answer, checked.
    pub fn decode(
        &self,
        context: &Context,
        application: &Application,
        answers: &[Answer],
        native: bool,
    ) -> Result<Vec<Reply>, ProviderError> {
        #[cfg(feature = "native")]
        if let Some(codec) = self.loaded.native {
            let replies = self.guarded(|| Ok(codec.decode(context, application, answers, native)))?;
            return self.checked(check::replies(answers, replies));
        }
        let targets = answers.iter().map(|answer| answer.targets.len()).sum();
        self.recorded("decode", &application.id, || {
            let replies = self.call(context, targets, async |codec, store| {
                codec.call_decode(store, context, application, answers, native).await
            })?;
            self.checked(check::replies(answers, replies))
        })
    }

    /// Runs a call, and records it in the log of its tenant. The many calls of a built-in component that go well are of
    /// no use there.
    pub(super) fn recorded<T>(
        &self,
        call: &'static str,
        application: &str,
        run: impl FnOnce() -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        self.log.record((call, application), self.loaded.trust == ComponentTrust::Uploaded, run)
    }

    /// Calls the guest, if the breaker and the tenant's CPU budget let the call pass.
    fn call<T>(
        &self,
        context: &Context,
        targets: usize,
        call: impl AsyncFnOnce(&codec::Guest, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, ProviderError> {
        self.guarded(|| self.call_instance(context, targets, call))
    }

    pub(super) fn manifest(&self) -> &ProviderManifest {
        &self.loaded.manifest
    }

    /// Counts an answer that breaks the contract.
    pub(super) fn checked<T>(&self, checked: Result<T, ProviderError>) -> Result<T, ProviderError> {
        checked.inspect_err(|error| self.note(error))
    }

    pub(super) fn guarded<T>(
        &self,
        call: impl FnOnce() -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let pass = self.breaker.admit().map_err(|retry_after| ProviderError::Quarantined { retry_after })?;
        let meter = self.share.as_ref().map(TenantQuota::meter).transpose();
        let result = meter.and_then(|_meter| self.timed(call));
        let verdict = match &result {
            Ok(_) => CallVerdict::Good,
            Err(error) if error.is_components_fault() => CallVerdict::Failed,
            Err(_) => CallVerdict::Void,
        };
        if let Err(error) = &result {
            self.note(error);
        }
        match self.breaker.report(pass, verdict) {
            Some(BreakerChange::Opened(pause)) => {
                self.usage.quarantined();
                self.tell(Some(pause));
            }
            Some(BreakerChange::Closed) => self.tell(None),
            None => {}
        }
        result
    }

    pub(super) fn bounds(&self) -> CallBounds {
        let limits = &self.loaded.sandbox.limits;
        self.share.as_ref().map_or_else(|| CallBounds::of(limits), |share| share.bounds(limits))
    }

    fn timed<T>(&self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        self.usage.called(start.elapsed());
        result
    }

    fn call_instance<T>(
        &self,
        context: &Context,
        targets: usize,
        call: impl AsyncFnOnce(&codec::Guest, &mut Store<GuestState>) -> wasmtime::Result<T>,
    ) -> Result<T, ProviderError> {
        let LoadedComponent { sandbox, component, functions, .. } = &*self.loaded;
        let WorldFunctions::Http(codec) = functions else {
            return Err(ProviderError::Refused("codec".into()));
        };
        let limits = &sandbox.limits;
        let bounds = self.bounds();
        // One from before the tenant's limits changed is of no use.
        let warm = self.shelf.take().filter(|warm| warm.guest().memory_limit() == bounds.memory);
        let look_up = |store: &mut Store<GuestState>, instance: &_| codec.load(store, instance);
        let fresh = || sandbox.instantiate(component, &bounds, &self.log, look_up);
        let mut instance = warm.map_or_else(fresh, Ok)?;
        instance.guest().observe_context(context);
        let value = sandbox.call(&mut instance, &bounds, targets, call).inspect_err(|error| {
            if *error == ProviderError::MemoryLimit {
                sandbox.idle.clear(bounds.account.as_ref());
            }
        })?;
        if limits.isolation == InstanceIsolation::Warm && instance.calls < limits.calls_per_instance {
            self.shelf.put(instance, limits);
        }
        Ok(value)
    }

    fn note(&self, error: &ProviderError) {
        if error.is_components_fault() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.share.iter().for_each(|share| share.failed());
            self.usage.failed(error);
        }
    }
}

/// What all instances of a component share.
pub(super) struct LoadedComponent {
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) component: InstancePre<GuestState>,
    pub(super) functions: WorldFunctions,
    pub(super) manifest: ProviderManifest,
    pub(super) manager: Option<CollectionManager>,
    pub(super) trust: ComponentTrust,
    pub(super) digest: String,
    /// Its code, on the account of its tenant, for as long as anything may still call it.
    pub(super) _code: Option<MemoryReservation>,
    #[cfg(feature = "native")]
    pub(super) native: Option<&'static dyn crate::native::NativeCodec>,
}
