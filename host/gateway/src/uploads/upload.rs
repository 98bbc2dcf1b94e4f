//! The steps of one upload. The last one tries the provider with its own examples, before anything depends on it: some
//! trap on their first call.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Map;
use tokio::sync::OwnedSemaphorePermit;

use super::policy::{Policy, UploadRefusal};
use super::state::{Change, UploadState, blocking, name_taken};
use super::view::ProviderView;
use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::manifest::{Example, ProviderManifest, SecretFormat, TargetKind};
use pushlet_model::contract::{Application, Context, Environment, Notification, Recipient, Target};
use pushlet_model::error::{Error, Kind};
use pushlet_model::notification;
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::Work;
use pushlet_sandbox::{
    ComponentTrust, GuestLog, Instances, PreparedRequests, Provider, ProviderCatalogue, ProviderError,
    ProviderLoader, digest,
};

/// Answers that every service gives at some time: status and body.
const ANSWERS: [(u16, &[u8]); 4] =
    [(200, b"{}"), (200, b"\xff\0 no text"), (400, b"{\"error\":\"invalid\"}"), (503, b"")];

/// The permit to upload one component.
pub struct Upload {
    change: Change,
    name: String,
    _place: OwnedSemaphorePermit,
}

/// Takes a component of the operator through the same steps, and adds it for all tenants. `known`: where it may be
/// loaded already.
pub fn for_everybody(
    catalogue: ProviderCatalogue,
    known: Option<&ProviderCatalogue>,
    loader: &ProviderLoader,
    policy: &Policy,
    component: &[u8],
) -> Result<ProviderCatalogue, Error> {
    let loaded = known.and_then(|known| {
        let digest = digest(component);
        known.shared().all().find(|provider| provider.digest() == digest).cloned()
    });
    let provider = match loaded {
        Some(loaded) => loaded,
        None => loader.load(component, ComponentTrust::Uploaded, &Arc::default())?,
    };
    let name = provider.manifest().name.clone();
    if catalogue.shared().get(&name).is_some() && !policy.allow_shadowing {
        return Err(name_taken(&name));
    }
    policy.check(&name, provider.manifest())?;
    dry_run_here(&provider, &TenantId::default_tenant())?;
    Ok(catalogue.with(provider))
}

impl Upload {
    pub(super) fn new(change: Change, name: &str, place: OwnedSemaphorePermit) -> Self {
        Self { change, name: name.to_owned(), _place: place }
    }

    /// Takes the component through all steps. `confirmed`: hosts that may get secrets although the version
    /// before did not send any there. `Err`: nothing has changed.
    pub async fn finish(
        self,
        component: Vec<u8>,
        confirmed: &[String],
    ) -> Result<ProviderView, UploadRefusal> {
        let (shared, tenant, name) = (self.change.shared.clone(), self.change.tenant.clone(), &self.name);
        let component: Arc<[u8]> = component.into();
        // Hashing megabytes would block an async thread.
        let hashed = component.clone();
        let digest = shared.accounts.in_background(move || digest(&hashed)).await?;
        shared.has_room(&tenant, name, &digest, component.len())?;
        let log = Arc::<GuestLog>::default();
        let loaded = self.load(&component, &log).await;
        if let Ok(provider) = &loaded {
            // The hosts of the version before are known only when it is loaded.
            shared.ready(&tenant, name).await?;
            shared.check_hosts(&tenant, name, provider, confirmed)?;
        }
        let tried = match &loaded {
            Ok(provider) => dry_run(provider, &tenant).await.inspect_err(|_| {
                log_of(provider, &tenant, &log);
            }),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = &tried {
            shared.refuse(&tenant, name, &digest, error, &log);
        }
        tried?;
        let provider = loaded?;
        let name = self.name.clone();
        blocking(move || {
            // The change and the permit are held until the version is active.
            let _upload = self;
            shared.keep(&tenant, &name, provider, &component)
        })
        .await
        .map_err(UploadRefusal::from)
    }

    async fn load(&self, component: &Arc<[u8]>, log: &Arc<GuestLog>) -> Result<Arc<Provider>, Error> {
        let Change { shared, tenant } = &self.change;
        let provider = load(shared, tenant, component, log).await?;
        shared.policy.check(&self.name, provider.manifest())?;
        Ok(provider)
    }
}

/// Loads a tenant's component, and compiles it if need be. Nothing changes.
pub(super) async fn load(
    shared: &Arc<UploadState>,
    tenant: &TenantId,
    component: &Arc<[u8]>,
    log: &Arc<GuestLog>,
) -> Result<Arc<Provider>, Error> {
    let account = shared.accounts.of(tenant);
    account.admit_work(Work::Compiling)?;
    let find = {
        let (shared, account) = (shared.clone(), account.clone());
        let (component, log) = (component.clone(), log.clone());
        move || {
            let _meter = account.meter(Work::Compiling);
            shared.loader.find(&account, &component, &log)
        }
    };
    if let Some(provider) = shared.accounts.in_background(find).await?? {
        return Ok(provider);
    }
    let job = shared.jobs.acquire(tenant).await?;
    let (shared, component, log) = (shared.clone(), component.clone(), log.clone());
    let accounts = shared.accounts.clone();
    let compile = move || {
        let _job = job;
        let _meter = account.meter(Work::Compiling);
        shared.loader.compile(&account, &component, &log)
    };
    Ok(accounts.in_background(compile).await??)
}

/// Adds what the tenant's instances printed to the log of the upload.
fn log_of(provider: &Provider, tenant: &TenantId, log: &GuestLog) {
    log.append(provider.instances(tenant).log().text().as_bytes());
}

/// Encodes each example, and decodes answers to it. Each example waits for the tenant's turn.
async fn dry_run(provider: &Arc<Provider>, tenant: &TenantId) -> Result<(), Error> {
    let instances = provider.instances(tenant);
    for (number, trial) in trials(provider) {
        let trial = trial?;
        verdict(number, instances.run(move |instances| trial.run(instances)).await)?;
    }
    Ok(())
}

/// Does the same on this thread: at the start of the server nothing else waits for a turn.
fn dry_run_here(provider: &Arc<Provider>, tenant: &TenantId) -> Result<(), Error> {
    let instances = provider.instances(tenant);
    trials(provider).try_for_each(|(number, trial)| verdict(number, trial?.run(&instances)))
}

fn trials(provider: &Provider) -> impl Iterator<Item = (usize, Result<Trial, Error>)> {
    let manifest = provider.manifest();
    manifest.examples.iter().enumerate().map(|(number, example)| {
        (
            number,
            Trial::new(manifest, example, provider.speaks_stream())
                .map_err(|why| failed_example(number, &why)),
        )
    })
}

fn verdict(number: usize, result: Result<Option<String>, ProviderError>) -> Result<(), Error> {
    match result {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(failed_example(number, &why)),
        Err(error @ (ProviderError::Exhausted | ProviderError::CpuLimit { .. })) => Err(error.into()),
        Err(error) => Err(failed_example(number, &error.to_string())),
    }
}

fn failed_example(number: usize, why: &str) -> Error {
    Error::new(Kind::Invalid, "dry_run_failed", format!("examples[{number}] of the manifest: {why}"))
}

/// One example as the provider's functions get it.
struct Trial {
    context: Context,
    application: Application,
    notification: Notification,
    /// The names of the headers that it reads.
    headers: Vec<String>,
    target: Recipient,
    /// The names of secrets with made-up lengths, if the component is of the world `stream-provider`.
    stream_secrets: Option<Vec<(String, u32)>>,
}

impl Trial {
    fn new(manifest: &ProviderManifest, example: &Example, stream: bool) -> Result<Self, String> {
        let fields: Map<_, _> = serde_json::from_str(&example.notification)
            .map_err(|error| format!("its notification is not a JSON object: {error}"))?;
        let notification =
            notification::from_json(fields, manifest, &[]).map_err(|error| error.message.into_owned())?;
        Ok(Self {
            context: Context::at(SystemTime::now(), vec![7; manifest.entropy as usize]),
            application: Application {
                id: "example".into(),
                environment: Environment::Production,
                settings: example.settings.clone(),
                credential: example.credential.clone(),
            },
            notification,
            headers: manifest.response_headers.clone(),
            target: example_target(manifest, example)?,
            stream_secrets: stream.then(|| example_secrets(manifest)),
        })
    }

    /// Returns what is wrong with the example or the component, or None. `Err`: the example could not be
    /// tried.
    fn run(&self, instances: &Instances) -> Result<Option<String>, ProviderError> {
        let checked = instances.check_application(&self.context, &self.application);
        match named_failure("check-application", instances, checked)? {
            Err(why) => return Ok(Some(why)),
            Ok(Err(rejection)) => {
                return Ok(Some(format!("its application is refused: {}", rejection.message)));
            }
            Ok(Ok(())) => {}
        }
        let targets = std::slice::from_ref(&self.target);
        if let Some(secrets) = &self.stream_secrets {
            return self.run_stream(instances, secrets, targets);
        }
        let encoded = instances.encode(&self.context, &self.application, &self.notification, targets);
        let refusals = match named_failure("encode", instances, encoded)? {
            Err(why) => return Ok(Some(why)),
            Ok(PreparedRequests { refusals, .. }) => refusals,
        };
        if let Some((_, rejection)) = refusals.first() {
            return Ok(Some(format!("it is refused: {}", rejection.message)));
        }
        for (status, body) in ANSWERS {
            let names = self.headers.iter();
            let headers = names.map(|name| (name.clone(), String::from("application/json"))).collect();
            let response = Response { status, headers, body: body.to_vec() };
            let answers = [Answer { targets: vec![self.target.target.clone()], response }];
            let decoded = instances.decode(&self.context, &self.application, &answers, true);
            let call =
                format!("decode of an answer of status {status}, body {:?}", String::from_utf8_lossy(body));
            if let Err(why) = named_failure(&call, instances, decoded)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }
}

impl Trial {
    /// Does the same with a connection that does not exist: what a service says cannot be made up.
    fn run_stream(
        &self,
        instances: &Instances,
        secrets: &[(String, u32)],
        targets: &[Recipient],
    ) -> Result<Option<String>, ProviderError> {
        let tried =
            instances.try_submission(&self.context, &self.application, secrets, &self.notification, targets);
        Ok(match named_failure("submit", instances, tried)? {
            Err(why) => Some(why),
            Ok(refused) => {
                refused.first().map(|(_, rejection)| format!("it is refused: {}", rejection.message))
            }
        })
    }
}

/// Returns the texts that a credential of the manifest may hold, each as if it had a few bytes.
fn example_secrets(manifest: &ProviderManifest) -> Vec<(String, u32)> {
    const LENGTH: u32 = 8;
    let secrets = manifest.credentials.iter().flat_map(|kind| kind.secrets.iter().chain(&kind.companions));
    let texts = secrets.filter(|secret| secret.format == SecretFormat::Text);
    texts.map(|secret| (secret.name.clone(), LENGTH)).collect()
}

/// Turns a failure of the component into one that names the call, with what the component printed last.
fn named_failure<T>(
    call: &str,
    instances: &Instances,
    result: Result<T, ProviderError>,
) -> Result<Result<T, String>, ProviderError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_components_fault() => {
            let printed =
                instances.log().last_words().map(|words| format!("; before that it printed: {words}"));
            Ok(Err(format!("{call}: {error}{}", printed.unwrap_or_default())))
        }
        Err(error) => Err(error),
    }
}

/// Returns an example's target: it is a text, and of the first kind that the provider supports.
fn example_target(manifest: &ProviderManifest, example: &Example) -> Result<Recipient, String> {
    let text = example.target.clone();
    let target = match manifest.targets.first() {
        Some(TargetKind::Topic) => Target::Topic(text),
        Some(TargetKind::Condition) => Target::Condition(text),
        Some(TargetKind::Channel) => Target::Channel(text),
        Some(TargetKind::Url) => Target::Url(text),
        Some(TargetKind::Device) | None => Target::Device(text),
    };
    let recipient = Recipient { target, options: example.target_options.clone() };
    notification::check_recipient(&recipient, manifest).map_err(|error| error.message.into_owned())?;
    Ok(recipient)
}
