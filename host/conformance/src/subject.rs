//! The component under test, in a sandbox of its own. Calls are timed, and a failed call is repeated with a new
//! instance, whose output tells what it printed in this call alone.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pushlet_model::contract::codec::{Answer, Reply};
use pushlet_model::contract::management::Collection;
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::contract::{Application, Context, Notification, Recipient, Rejection};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts, WorkLimits};
use pushlet_sandbox::{
    BreakerPolicy, CodeFolder, ComponentTrust, GuestLog, Instances, LoadError, PreparedRequests, Provider,
    ProviderError, Sandbox, SandboxLimits,
};

use crate::report::{Figures, Rule, RuleReport};

/// A call that takes more than this part of its time is reported: on a slower machine it would be stopped.
const SLOW: f64 = 0.5;
/// The same for memory.
const LARGE: f64 = 0.75;

/// A loaded component, and what its calls have cost so far.
pub struct Subject {
    provider: Arc<Provider>,
    warm: Arc<Instances>,
    limits: SandboxLimits,
    costs: RefCell<Costs>,
    tenants: Cell<u64>,
}

/// How a call failed.
pub(crate) struct Failure {
    /// None: it was not in a call.
    pub error: Option<ProviderError>,
    pub message: String,
    /// The end of what the component printed in this call.
    pub printed: Option<String>,
}

/// A component that no call has used yet. Its instances end with it.
pub(crate) struct FreshInstances<'a> {
    provider: &'a Provider,
    tenant: TenantId,
    pub instances: Arc<Instances>,
}

#[derive(Default)]
struct Costs {
    load: Duration,
    fresh: Shortest,
    encode: Shortest,
    each: Shortest,
    decode: Shortest,
    longest: (Duration, String),
    memory: usize,
    calls: usize,
}

/// The shortest of many times: what the component itself takes, without what else the machine did.
#[derive(Default)]
struct Shortest(Option<Duration>);

impl Shortest {
    fn add(&mut self, time: Duration) {
        self.0 = Some(self.0.map_or(time, |shortest| shortest.min(time)));
    }

    fn get(&self) -> Duration {
        self.0.unwrap_or_default()
    }
}

/// How many targets a call has from which the time of each is computed.
const MANY: usize = 50;

impl Subject {
    /// Loads a component as a server loads one that is uploaded. `folder`: where its compiled code is kept. `Err`: why
    /// not, and what it printed.
    pub fn load(component: &[u8], folder: Option<&CodeFolder>) -> Result<Self, (LoadError, Option<String>)> {
        let breaker = BreakerPolicy { failures: usize::MAX, ..BreakerPolicy::default() };
        let limits = SandboxLimits { breaker, ..SandboxLimits::default() };
        // Nothing here waits for a turn: the time of the checks is nobody's.
        let cpu_burst = Duration::from_secs(1_000_000);
        let work = WorkLimits { cpu_burst, low_priority: false, ..WorkLimits::default() };
        let settings = AccountSettings { work, ..AccountSettings::default() };
        let sandbox = Accounts::new(settings)
            .map_err(|error| LoadError::NoCompiler(error.to_string()))
            .and_then(|accounts| {
                Sandbox::new(limits.clone(), accounts)
                    .map_err(|error| LoadError::NoCompiler(error.to_string()))
            })
            .map_err(|error| (error, None))?;
        let log = Arc::<GuestLog>::default();
        let start = Instant::now();
        let trust = ComponentTrust::Uploaded;
        let provider = match folder {
            Some(folder) => Provider::load_through(folder, &sandbox, component, trust, &log),
            None => Provider::load(&sandbox, component, trust, &log),
        };
        let provider = provider.map_err(|error| (error, log.last_words()))?;
        let costs = RefCell::new(Costs { load: start.elapsed(), ..Costs::default() });
        let warm = provider.instances(&TenantId::new("check"));
        Ok(Self { provider, warm, limits, costs, tenants: Cell::new(0) })
    }

    pub fn manifest(&self) -> &ProviderManifest {
        self.provider.manifest()
    }

    /// Returns true if it is of the world `stream-provider`.
    pub(crate) fn speaks_stream(&self) -> bool {
        self.provider.speaks_stream()
    }

    /// Returns the instances that calls use.
    pub fn instances(&self) -> &Arc<Instances> {
        &self.warm
    }

    /// Asks a new instance for the manifest, at another time and with other random numbers.
    pub(crate) fn describe_again(&self) -> Result<ProviderManifest, Failure> {
        let log = Arc::<GuestLog>::default();
        let context = Context::at(SystemTime::now(), b"other".to_vec());
        self.provider.describe(&context, &log).map_err(|error| Failure {
            error: None,
            message: error.to_string(),
            printed: log.last_words(),
        })
    }

    pub(crate) fn collections(&self) -> &[Collection] {
        self.provider.collections()
    }

    /// Returns instances that no call has used.
    pub(crate) fn fresh(&self) -> FreshInstances<'_> {
        let number = self.tenants.get();
        self.tenants.set(number + 1);
        let tenant = TenantId::new(&format!("fresh {number}"));
        let instances = self.provider.instances(&tenant);
        FreshInstances { provider: &self.provider, tenant, instances }
    }

    /// Calls the component, with an instance that earlier calls have used. `place`: the input, for people.
    pub(crate) fn call<T>(
        &self,
        place: &str,
        call: impl Fn(&Instances) -> Result<T, ProviderError>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let result = call(&self.warm);
        let took = start.elapsed();
        let mut costs = self.costs.borrow_mut();
        costs.calls += 1;
        costs.memory = costs.memory.max(self.provider.sandbox().figures().idle_memory);
        match result {
            Ok(value) => {
                if took > costs.longest.0 {
                    costs.longest = (took, place.to_owned());
                }
                Ok(value)
            }
            Err(error) => Err(self.explain(error, call)),
        }
    }

    fn explain<T>(
        &self,
        error: ProviderError,
        call: impl Fn(&Instances) -> Result<T, ProviderError>,
    ) -> Failure {
        let fresh = self.fresh();
        match call(&fresh.instances) {
            Err(_) => Failure {
                message: error.to_string(),
                error: Some(error),
                printed: fresh.instances.log().last_words(),
            },
            Ok(_) => Failure {
                error: Some(error.clone()),
                message: format!(
                    "{error}; a new instance answers the same input, so earlier calls left something"
                ),
                printed: self.warm.log().last_words(),
            },
        }
    }

    pub(crate) fn check_application(
        &self,
        place: &str,
        context: &Context,
        application: &Application,
    ) -> Result<Result<(), Rejection>, Failure> {
        self.call(&format!("check-application, {place}"), |instances| {
            instances.check_application(context, application)
        })
    }

    pub(crate) fn encode(
        &self,
        place: &str,
        context: &Context,
        application: &Application,
        notification: &Notification,
        targets: &[Recipient],
    ) -> Result<PreparedRequests, Failure> {
        let start = Instant::now();
        let encoded = self.call(&format!("encode, {place}"), |instances| {
            instances.encode(context, application, notification, targets)
        })?;
        let took = start.elapsed();
        let mut costs = self.costs.borrow_mut();
        match u32::try_from(targets.len()) {
            Ok(1) => costs.encode.add(took),
            Ok(many) if many as usize >= MANY => costs.each.add(took / many),
            _ => {}
        }
        Ok(encoded)
    }

    /// Encodes with an instance that no call has used.
    pub(crate) fn encode_fresh(
        &self,
        context: &Context,
        application: &Application,
        notification: &Notification,
        targets: &[Recipient],
    ) -> Result<PreparedRequests, ProviderError> {
        let fresh = self.fresh();
        let start = Instant::now();
        let encoded = fresh.instances.encode(context, application, notification, targets);
        self.costs.borrow_mut().fresh.add(start.elapsed());
        encoded
    }

    pub(crate) fn decode(
        &self,
        place: &str,
        context: &Context,
        application: &Application,
        answers: &[Answer],
        native: bool,
    ) -> Result<Vec<Reply>, Failure> {
        let answers = &self.visible(answers);
        let start = Instant::now();
        let replies = self.call(&format!("decode, {place}"), |instances| {
            instances.decode(context, application, answers, native)
        })?;
        if answers.len() == 1 {
            self.costs.borrow_mut().decode.add(start.elapsed());
        }
        Ok(replies)
    }

    /// Returns the answers as a host shows them: without headers that the manifest does not name.
    fn visible(&self, answers: &[Answer]) -> Vec<Answer> {
        let names = &self.manifest().response_headers;
        let mut answers = answers.to_vec();
        for answer in &mut answers {
            answer
                .response
                .headers
                .retain(|(name, _)| names.iter().any(|known| known.eq_ignore_ascii_case(name)));
        }
        answers
    }

    pub(crate) fn figures(&self) -> Figures {
        let costs = self.costs.borrow();
        Figures {
            load: costs.load,
            encode_fresh: costs.fresh.get(),
            encode: costs.encode.get(),
            encode_each: costs.each.get(),
            decode: costs.decode.get(),
            longest: costs.longest.clone(),
            memory: costs.memory,
        }
    }

    /// Reports calls that come near to a limit.
    pub(crate) fn budgets(&self) -> RuleReport {
        let costs = self.costs.borrow();
        let mut rule = Rule::new("budgets", "time and memory of each call").with_cases(costs.calls);
        let (longest, place) = &costs.longest;
        if *longest > self.limits.call_timeout.mul_f64(SLOW) {
            let message = format!("it took {longest:.1?} of at most {:.1?}", self.limits.call_timeout);
            rule.warning("any", place.clone(), message);
        }
        if costs.memory as f64 > self.limits.memory as f64 * LARGE {
            let message = format!("an instance has {} of at most {} bytes", costs.memory, self.limits.memory);
            rule.warning("any", "linear memory", message);
        }
        rule.done()
    }
}

impl Drop for FreshInstances<'_> {
    fn drop(&mut self) {
        self.provider.forget(&self.tenant);
    }
}
