//! The warm instances of one component for one tenant, and the calls through them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::check::{self, Prepared};
use super::instance::Instance;
use super::load::Loaded;
use super::log::GuestLog;
use super::{Isolation, ProviderError};
use crate::contract::codec::{Answer, Reply};
use crate::contract::{Application, Context, Notification, Rejection, Target};

/// Calls are synchronous and never held across an await, so that no more instances are in use at once
/// than there are threads that call.
pub struct Instances {
    loaded: Arc<Loaded>,
    idle: Mutex<Vec<Instance>>,
    log: Arc<GuestLog>,
    traps: AtomicU64,
}

impl Instances {
    pub(super) fn new(loaded: Arc<Loaded>) -> Self {
        Self { loaded, idle: Mutex::default(), log: Arc::default(), traps: AtomicU64::new(0) }
    }

    /// What the guest printed.
    pub fn log(&self) -> &GuestLog {
        &self.log
    }

    /// How many calls ended in a trap, a time-out or a limit.
    pub fn traps(&self) -> u64 {
        self.traps.load(Ordering::Relaxed)
    }

    /// Are the settings of this application complete and sound? `Ok(Err(…))`: no, and why.
    pub fn check_application(
        &self,
        context: &Context,
        application: &Application,
    ) -> Result<Result<(), Rejection>, ProviderError> {
        self.with_instance(context, 1, async |guest, store| {
            guest.pushlet_provider_codec().call_check_application(store, application).await
        })
    }

    /// The requests that deliver `notification` to `targets`, checked.
    pub fn encode(
        &self,
        context: &Context,
        application: &Application,
        notification: &Notification,
        targets: &[Target],
    ) -> Result<Prepared, ProviderError> {
        let encoded = self.with_instance(context, targets.len(), async |guest, store| {
            let codec = guest.pushlet_provider_codec();
            codec.call_encode(store, context, application, notification, targets).await
        })?;
        check::encoded(&self.loaded.manifest, application.environment, targets.len(), encoded)
    }

    /// What became of the targets of each answer, checked.
    pub fn decode(
        &self,
        context: &Context,
        application: &Application,
        answers: &[Answer],
        native: bool,
    ) -> Result<Vec<Reply>, ProviderError> {
        let targets = answers.iter().map(|answer| answer.targets.len()).sum();
        let replies = self.with_instance(context, targets, async |guest, store| {
            guest.pushlet_provider_codec().call_decode(store, context, application, answers, native).await
        })?;
        check::replies(answers, replies)
    }

    fn with_instance<T>(
        &self,
        context: &Context,
        targets: usize,
        call: impl AsyncFnOnce(
            &crate::contract::HttpProvider,
            &mut wasmtime::Store<super::guest::Guest>,
        ) -> wasmtime::Result<T>,
    ) -> Result<T, ProviderError> {
        let sandbox = &self.loaded.sandbox;
        let mut instance = match self.idle().pop() {
            Some(instance) => instance,
            None => Instance::new(sandbox, &self.loaded.component, &self.log)
                .inspect_err(|error| self.count(error))?,
        };
        instance.guest().observe_context(context);
        let result = instance.call(&sandbox.limits, targets, call);
        match &result {
            Ok(_) => self.put_back(instance),
            Err(error) => self.count(error),
        }
        result
    }

    fn put_back(&self, instance: Instance) {
        let limits = &self.loaded.sandbox.limits;
        if limits.isolation == Isolation::PerCall || instance.calls >= limits.calls_per_instance {
            return;
        }
        let mut idle = self.idle();
        if idle.len() < limits.idle {
            idle.push(instance);
        }
    }

    fn count(&self, error: &ProviderError) {
        if *error != ProviderError::Exhausted {
            self.traps.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
