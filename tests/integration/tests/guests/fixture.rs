//! One sandbox for all hostile guests, and in it a victim tenant whose results must not change.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::{Alert, Application, Context, Environment, Notification, Recipient, Target};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts, WorkLimits};
use pushlet_sandbox::{
    BUILT_IN, BreakerPolicy, ComponentTrust, Instances, LoadError, Provider, ProviderError, Sandbox,
    SandboxLimits,
};

/// Name and component of each guest in `tests/guests/examples`.
pub const GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// Limits with which the failures of one test do not affect another.
pub fn limits() -> SandboxLimits {
    let breaker = BreakerPolicy { failures: usize::MAX, ..BreakerPolicy::default() };
    // Other tests may keep the machine busy, and the victim must finish within this time.
    SandboxLimits { call_timeout: Duration::from_secs(1), breaker, ..SandboxLimits::default() }
}

/// Limits on processor time with the same property.
pub fn work() -> WorkLimits {
    WorkLimits { cpu_burst: Duration::from_secs(100_000), ..WorkLimits::default() }
}

pub fn accounts(work: WorkLimits) -> Arc<Accounts> {
    Accounts::new(AccountSettings { work, ..AccountSettings::default() }).unwrap()
}

pub fn component(name: &str) -> &'static [u8] {
    GUESTS.iter().find(|(guest, _)| *guest == name).unwrap_or_else(|| panic!("no guest {name}")).1
}

pub fn apns(sandbox: &Arc<Sandbox>) -> Arc<Provider> {
    let (_, bytes) = BUILT_IN.iter().find(|(name, _)| *name == "apns").unwrap();
    Provider::load(sandbox, bytes, ComponentTrust::BuiltIn, &Arc::default()).unwrap()
}

/// An application with these settings.
pub fn application(settings: &[(&str, &str)]) -> Application {
    Application {
        id: "app".into(),
        environment: Environment::Production,
        settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        credential: None,
    }
}

pub fn context() -> Context {
    Context { now: 1_700_000_000_000, entropy: (0..32).collect() }
}

pub fn devices(count: usize) -> Vec<Recipient> {
    (0..count).map(|device| Target::Device(format!("{device:064x}")).into()).collect()
}

pub fn hello() -> Notification {
    let alert = Alert { body: Some("hello".into()), ..Alert::default() };
    Notification { alert: Some(alert), ..Notification::default() }
}

/// One response for two devices.
pub fn answers() -> [Answer; 1] {
    let response = Response { status: 200, headers: Vec::new(), body: b"{}".to_vec() };
    let targets = devices(2).into_iter().map(|recipient| recipient.target).collect();
    [Answer { targets, response }]
}

/// An exported function.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    CheckApplication,
    Encode,
    Decode,
}

/// Calls an export for two devices; returns the result as text.
pub fn call(instances: &Instances, call: Call, application: &Application) -> Result<String, ProviderError> {
    let context = context();
    match call {
        Call::CheckApplication => {
            instances.check_application(&context, application).map(|answer| format!("{answer:?}"))
        }
        Call::Encode => instances
            .encode(&context, application, &hello(), &devices(2))
            .map(|prepared| format!("{prepared:?}")),
        Call::Decode => {
            instances.decode(&context, application, &answers(), true).map(|replies| format!("{replies:?}"))
        }
    }
}

/// The sandbox that the hostile guests share with the victim.
pub struct SharedSandbox {
    pub sandbox: Arc<Sandbox>,
    victim: Arc<Instances>,
    expected: String,
}

pub fn shared_sandbox() -> &'static SharedSandbox {
    static SHARED: OnceLock<SharedSandbox> = OnceLock::new();
    SHARED.get_or_init(|| {
        let sandbox = Sandbox::new(limits(), accounts(work())).unwrap();
        let victim = apns(&sandbox).instances(&TenantId::new("victim"));
        let expected = victim_results(&victim).unwrap();
        SharedSandbox { sandbox, victim, expected }
    })
}

fn victim_results(victim: &Instances) -> Result<String, ProviderError> {
    let application = application(&[("apns_topic", "com.example.app")]);
    let encoded = call(victim, Call::Encode, &application)?;
    Ok(encoded + &call(victim, Call::Decode, &application)?)
}

impl SharedSandbox {
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Provider>, LoadError> {
        Provider::load(&self.sandbox, bytes, ComponentTrust::Uploaded, &Arc::default())
    }

    /// Runs `act` while the victim keeps calling: its results must not change, during or after.
    pub fn with_victim_running<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let victim = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(victim_results(&self.victim).as_ref(), Ok(&self.expected));
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let end = End(&over);
            let result = act();
            drop(end);
            victim.join().expect("the victim's results stay the same");
            assert_eq!(victim_results(&self.victim).as_ref(), Ok(&self.expected));
            result
        })
    }
}

/// Stops the victim, also after a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guest that is used by a tenant of its own.
pub struct HostileGuest(pub Arc<Instances>);

impl HostileGuest {
    pub fn new(name: &str) -> Self {
        static TENANTS: AtomicU32 = AtomicU32::new(0);
        let tenant = format!("guest {}", TENANTS.fetch_add(1, Ordering::Relaxed));
        Self(shared_sandbox().load(component(name)).unwrap().instances(&TenantId::new(&tenant)))
    }

    /// Calls an export with these settings while the victim runs.
    pub fn call(&self, export: Call, settings: &[(&str, &str)]) -> Result<String, ProviderError> {
        shared_sandbox().with_victim_running(|| call(&self.0, export, &application(settings)))
    }

    /// Checks that a call with these settings fails with this error, and that the next call succeeds.
    pub fn is_contained(&self, export: Call, settings: &[(&str, &str)], error: &ProviderError) {
        assert_eq!(self.call(export, settings).as_ref(), Err(error), "{export:?} {settings:?}");
        self.call(export, &[]).unwrap_or_else(|error| panic!("a fresh instance after {settings:?}: {error}"));
    }

    /// As [`HostileGuest::is_contained`], with the setting `do`.
    pub fn fails_with(&self, export: Call, task: &str, error: &ProviderError) {
        self.is_contained(export, &[("do", task)], error);
    }
}

pub fn bad(what: &str) -> ProviderError {
    ProviderError::BadOutput(what.into())
}

pub fn refused(what: &str) -> ProviderError {
    ProviderError::Refused(what.into())
}

pub fn panicked(what: &str) -> ProviderError {
    ProviderError::Panicked(what.into())
}
