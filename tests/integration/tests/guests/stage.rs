//! One sandbox for all villains, and in it a neighbour who must not notice them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::{Alert, Application, Context, Environment, Notification, Target};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts, WorkLimits};
use pushlet_sandbox::{
    BUILT_IN, BreakerPolicy, Instances, Limits, LoadError, Provider, ProviderError, Sandbox, Trust,
};

/// Name and component of each guest in `tests/guests/examples`.
pub const GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// Limits under which one test does not trip over the failures of another.
pub fn limits() -> Limits {
    let breaker = BreakerPolicy { failures: usize::MAX, ..BreakerPolicy::default() };
    // The machine may be busy with other tests, and the neighbour has to be done in this time.
    Limits { call_timeout: Duration::from_secs(1), breaker, ..Limits::default() }
}

/// The same for processor time.
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
    Provider::load(sandbox, bytes, Trust::BuiltIn, &Arc::default()).unwrap()
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

pub fn devices(count: usize) -> Vec<Target> {
    (0..count).map(|device| Target::Device(format!("{device:064x}"))).collect()
}

pub fn hello() -> Notification {
    let alert = Alert { body: Some("hello".into()), ..Alert::default() };
    Notification { alert: Some(alert), ..Notification::default() }
}

/// One answer for two devices.
pub fn answers() -> [Answer; 1] {
    let response = Response { status: 200, headers: Vec::new(), body: b"{}".to_vec() };
    [Answer { targets: devices(2), response }]
}

/// An exported function.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    CheckApplication,
    Encode,
    Decode,
}

/// Calls it, for two devices, and tells in text what it answered.
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

/// The sandbox that the villains share with the neighbour.
pub struct Stage {
    pub sandbox: Arc<Sandbox>,
    neighbour: Arc<Instances>,
    expected: String,
}

pub fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let sandbox = Sandbox::new(limits(), accounts(work())).unwrap();
        let neighbour = apns(&sandbox).instances(&TenantId::new("neighbour"));
        let expected = neighbours_results(&neighbour).unwrap();
        Stage { sandbox, neighbour, expected }
    })
}

fn neighbours_results(neighbour: &Instances) -> Result<String, ProviderError> {
    let application = application(&[("apns_topic", "com.example.app")]);
    let encoded = call(neighbour, Call::Encode, &application)?;
    Ok(encoded + &call(neighbour, Call::Decode, &application)?)
}

impl Stage {
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Provider>, LoadError> {
        Provider::load(&self.sandbox, bytes, Trust::Uploaded, &Arc::default())
    }

    /// Does something while the neighbour goes on: its results stay the same, during and after.
    pub fn beside_the_neighbour<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let neighbour = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(neighbours_results(&self.neighbour).as_ref(), Ok(&self.expected));
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let end = End(&over);
            let result = act();
            drop(end);
            neighbour.join().expect("the neighbour's results stay the same");
            assert_eq!(neighbours_results(&self.neighbour).as_ref(), Ok(&self.expected));
            result
        })
    }
}

/// Tells the neighbour to stop, also after a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guest at the hands of a tenant of its own.
pub struct Villain(pub Arc<Instances>);

impl Villain {
    pub fn new(name: &str) -> Self {
        static TENANTS: AtomicU32 = AtomicU32::new(0);
        let tenant = format!("villain {}", TENANTS.fetch_add(1, Ordering::Relaxed));
        Self(stage().load(component(name)).unwrap().instances(&TenantId::new(&tenant)))
    }

    /// Makes it do what `settings` say, beside the neighbour.
    pub fn call(&self, export: Call, settings: &[(&str, &str)]) -> Result<String, ProviderError> {
        stage().beside_the_neighbour(|| call(&self.0, export, &application(settings)))
    }

    /// It does what `settings` say, gets this error for it, and is served again the next time.
    pub fn is_contained(&self, export: Call, settings: &[(&str, &str)], error: &ProviderError) {
        assert_eq!(self.call(export, settings).as_ref(), Err(error), "{export:?} {settings:?}");
        self.call(export, &[]).unwrap_or_else(|error| panic!("a fresh instance after {settings:?}: {error}"));
    }

    /// As [`Villain::is_contained`], with the setting `do`.
    pub fn does(&self, export: Call, task: &str, error: &ProviderError) {
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
