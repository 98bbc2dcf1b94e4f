//! Registration: everything that can be checked without the network is checked now, not at the first send.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::applications::Expiring;
use crate::gateway::Gateway;
use pushlet_credential::{Credential, CredentialPurpose, Secret, UploadedSecrets, upload_fields};
use pushlet_model::contract::manifest::{Credential as CredentialKind, ProviderManifest};
use pushlet_model::contract::{self, Context, Environment};
use pushlet_model::error::RepeatedWarning;
use pushlet_model::error::{Error, Kind};
use pushlet_model::notification;
use pushlet_model::tenant::TenantId;
use pushlet_model::text::{did_you_mean, nearest};
use pushlet_quota::account::Work;
use pushlet_registry::{ApplicationEntry, FeedbackList, RegisteredApplication};
use pushlet_sandbox::{Provider, TenantProviders};

/// The provider of a registration that names none and has no credential.
const DEFAULT_PROVIDER: &str = "apns";
/// Values of `{provider}_mode` for the service's test environment: ours, and Apple's word.
const DEVELOPMENT: [&[u8]; 2] = [b"development", b"sandbox"];
const PRODUCTION: &[u8] = b"production";
const LONGEST_ID: usize = 256;

/// An uploaded registration: text fields and files by field name.
#[derive(Default)]
pub struct Registration {
    /// None: an id is generated.
    pub application_id: Option<String>,
    /// The provider's name; None: the provider whose credential was uploaded.
    pub provider: Option<String>,
    /// None: taken from the field `{provider}_mode`; production without it.
    pub environment: Option<Environment>,
    /// All other fields, secrets among them, by name.
    pub fields: BTreeMap<String, Vec<u8>>,
    /// Unknown names are errors; otherwise they are ignored.
    pub strict: bool,
}

impl Gateway {
    /// Checks and stores an application; an existing one with the same id is replaced. Returns its id; opens
    /// no connection. Registrations of one tenant run one after the other, and to their end even if the
    /// caller goes away.
    pub async fn register(&self, tenant: TenantId, registration: Registration) -> Result<String, Error> {
        let permit = self.0.tenants.acquire_registration_permit(&tenant).await?;
        let (gateway, runtime) = (self.clone(), Handle::current());
        // Reading a PKCS#12 file takes long, so this does not run on an async thread.
        let register = move || {
            let _permit = permit;
            // The permit is held here, not by the caller, so that a registration that is abandoned still ends
            // before the next one begins.
            runtime.block_on(gateway.register_now(&tenant, registration))
        };
        tokio::task::spawn_blocking(register).await.map_err(Error::internal)?
    }

    async fn register_now(&self, tenant: &TenantId, registration: Registration) -> Result<String, Error> {
        let most = self.0.tenants.limits(tenant)?.applications;
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let (application, secrets) = self.check_registration(tenant, registration).await?;
        let id = application.record.id.clone();
        let (entry, replaced) = self.0.registry.put(tenant, application, &secrets, most)?;
        self.take_on_registration(tenant, &entry, replaced);
        Ok(id)
    }

    /// Warns of a certificate that ends soon, and closes the connections of an application that was replaced.
    pub(crate) fn take_on_registration(
        &self,
        tenant: &TenantId,
        entry: &ApplicationEntry,
        replaced: Option<Arc<ApplicationEntry>>,
    ) {
        if let Some(expiring) = Expiring::of(tenant, entry, SystemTime::now()) {
            expiring.warn();
        }
        if let Some(replaced) = replaced {
            self.retire_connections(tenant.clone(), replaced);
        }
    }

    /// Creates the application that a registration describes, with its secrets, and stores nothing.
    pub(crate) async fn check_registration(
        &self,
        tenant: &TenantId,
        registration: Registration,
    ) -> Result<(RegisteredApplication, UploadedSecrets), Error> {
        let Registration { application_id, provider, environment, mut fields, strict } = registration;
        let id = application_id.map_or_else(|| Ok(Uuid::new_v4().to_string()), checked_id)?;
        let provider = self.provider_of(tenant, provider.as_deref(), &fields).await?;
        let mode = format!("{}_mode", provider.manifest().name);
        if strict {
            known(provider.manifest(), &mode, fields.keys())?;
        }
        if let Some(environment) = environment {
            if fields.contains_key(&mode) {
                let message = format!("give environment or {mode}, not both");
                return Err(Error::field("invalid_environment", "environment", message));
            }
            let name = match environment {
                Environment::Production => PRODUCTION,
                Environment::Development => DEVELOPMENT[0],
            };
            fields.insert(mode, name.to_vec());
        }
        self.checked_application(&provider, tenant, id, fields).await
    }

    /// Creates an application from uploaded fields, checked by the host and by its provider. Returns its
    /// secrets too.
    pub(crate) async fn checked_application(
        &self,
        provider: &Arc<Provider>,
        tenant: &TenantId,
        id: String,
        mut fields: BTreeMap<String, Vec<u8>>,
    ) -> Result<(RegisteredApplication, UploadedSecrets), Error> {
        let manifest = provider.manifest();
        let uploads = take_uploads(manifest, &mut fields);
        let now = SystemTime::now();
        let environment = environment(manifest, &fields)?;
        if !manifest.environments.contains(&environment) {
            // Every manifest has production.
            let message = format!("{} has no development environment", manifest.name);
            return Err(Error::field("invalid_environment", "environment", message));
        }
        let purpose = CredentialPurpose { environment, now, settings: given(manifest, &fields) };
        let owner = self.0.catalogue.of_tenant(tenant).is_own(&manifest.name).then_some(tenant);
        self.0.destinations.ensure_configured(owner, manifest, environment)?;
        let (credential, uploads) = self.parse_credential(provider, tenant, uploads, purpose).await?;
        if credential.is_none() && !manifest.credentials.is_empty() {
            return Err(missing_credential(manifest));
        }
        let kind = credential
            .as_ref()
            .and_then(|credential| manifest.credentials.iter().find(|kind| kind.name == credential.kind()));
        let record = contract::Application {
            id,
            environment,
            settings: settings(manifest, kind, credential.as_ref(), fields)?,
            credential: kind.map(|kind| kind.name.clone()),
        };
        let context = Context::at(now, Vec::new());
        let instances = provider.instances(tenant);
        // The provider may run on another thread, which cannot borrow the record.
        let checked = record.clone();
        instances.run(move |instances| instances.check_application(&context, &checked)).await??;
        let feedback = Arc::new(FeedbackList::new(self.0.feedback));
        let places = Arc::new(Semaphore::new(self.0.places));
        let provider = manifest.name.clone();
        let (identity, unreached) = (OnceLock::new(), RepeatedWarning::default());
        Ok((
            RegisteredApplication { record, provider, credential, feedback, places, identity, unreached },
            uploads,
        ))
    }

    /// Parses the credential among some secrets, and returns both. A file decides how much work it takes to
    /// read it, so costly ones are read on the threads for heavy work, on the tenant's account.
    pub(crate) async fn parse_credential(
        &self,
        provider: &Arc<Provider>,
        tenant: &TenantId,
        uploads: UploadedSecrets,
        purpose: CredentialPurpose,
    ) -> Result<(Option<Credential>, UploadedSecrets), Error> {
        let is_costly = Credential::is_costly(&provider.manifest().credentials, &uploads);
        let provider = provider.clone();
        let parse =
            move || (Credential::parse(&provider.manifest().credentials, &uploads, &purpose), uploads);
        let (credential, uploads) = match is_costly {
            true => self.0.tenants.accounts().of(tenant).run_heavy(Work::KeyDerivation, parse).await?,
            false => parse(),
        };
        Ok((credential?, uploads))
    }

    /// Returns the provider that is named, or the one whose credential was uploaded.
    async fn provider_of(
        &self,
        tenant: &TenantId,
        name: Option<&str>,
        fields: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Arc<Provider>, Error> {
        if let Some(name) = name {
            return named(&*self.providers(tenant, name).await?, name);
        }
        let given = |name: &String| fields.get(name).is_some_and(|value| !value.is_empty());
        let holds_secret = |provider: &&Arc<Provider>| {
            let secrets = provider.manifest().credentials.iter().flat_map(|kind| &kind.secrets);
            secrets.map(|secret| &secret.name).any(given)
        };
        let providers = self.all_providers(tenant).await?;
        match providers.all().find(holds_secret) {
            Some(provider) => Ok(provider.clone()),
            None => named(&providers, DEFAULT_PROVIDER),
        }
    }
}

fn named(providers: &TenantProviders, name: &str) -> Result<Arc<Provider>, Error> {
    providers.get(name).cloned().ok_or_else(|| {
        let names: Vec<_> = providers.all().map(|provider| provider.manifest().name.as_str()).collect();
        Error::field("invalid_type", "type", format!("type must be one of {}", names.join(", ")))
    })
}

fn checked_id(id: String) -> Result<String, Error> {
    if id.len() <= LONGEST_ID && !id.chars().any(char::is_control) {
        return Ok(id);
    }
    let message = format!("application_id must be at most {LONGEST_ID} bytes without control characters");
    Err(Error::field("invalid_application_id", "application_id", message))
}

/// Returns an error unless every name is one of the manifest's settings or secrets, or the choice of the
/// environment.
fn known<'a>(
    manifest: &ProviderManifest,
    mode: &str,
    mut names: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    let uploads: Vec<&str> = upload_fields(&manifest.credentials).collect();
    let settings = manifest.settings.iter().map(|setting| setting.name.as_str());
    let known: Vec<&str> = uploads.into_iter().chain(settings).chain([mode]).collect();
    match names.find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let hint = did_you_mean(nearest(name, known));
            // A secret may stand where a name should: only what looks like a name is repeated.
            let is_plain =
                name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if hint.is_empty() && !is_plain {
                let message =
                    format!("there is a field that an application for {} does not have", manifest.name);
                return Err(Error::new(Kind::Invalid, "unknown_field", message));
            }
            let message = format!("{name} is not a field of an application for {}{hint}", manifest.name);
            Err(Error::field("unknown_field", name, message))
        }
    }
}

fn take_uploads(manifest: &ProviderManifest, fields: &mut BTreeMap<String, Vec<u8>>) -> UploadedSecrets {
    let mut uploads = UploadedSecrets::default();
    for secret in manifest.credentials.iter().flat_map(|kind| kind.secrets.iter().chain(&kind.companions)) {
        for name in std::iter::once(&secret.name).chain(&secret.password) {
            if let Some(value) = fields.remove(name) {
                uploads.insert(name, Secret::new(value));
            }
        }
    }
    uploads
}

/// Returns the environment: `apns_mode=development` chooses the service's test environment.
fn environment(
    manifest: &ProviderManifest,
    fields: &BTreeMap<String, Vec<u8>>,
) -> Result<Environment, Error> {
    let name = format!("{}_mode", manifest.name);
    match fields.get(&name).map(Vec::as_slice) {
        None | Some(b"" | PRODUCTION) => Ok(Environment::Production),
        Some(mode) if DEVELOPMENT.contains(&mode) => Ok(Environment::Development),
        Some(_) => {
            let message =
                format!("{name} must be production or development (sandbox is another word for it)");
            Err(Error::field(format!("invalid_{name}"), name, message))
        }
    }
}

/// Returns the manifest's settings among the uploaded fields, if they are UTF-8.
fn given(manifest: &ProviderManifest, fields: &BTreeMap<String, Vec<u8>>) -> Vec<(String, String)> {
    let settings = manifest.settings.iter().map(|setting| &setting.name);
    let value = |name: &String| String::from_utf8(fields.get(name)?.clone()).ok();
    settings.filter_map(|name| Some((name.clone(), value(name)?))).collect()
}

/// Returns the manifest's settings: given by the caller, otherwise read from the credential.
fn settings(
    manifest: &ProviderManifest,
    kind: Option<&CredentialKind>,
    credential: Option<&Credential>,
    fields: BTreeMap<String, Vec<u8>>,
) -> Result<Vec<(String, String)>, Error> {
    let mut settings = notification::settings(fields, manifest)?;
    let always = manifest.settings.iter().filter(|setting| setting.required).map(|setting| &setting.name);
    let Some((kind, credential)) = kind.zip(credential) else {
        return all_there(settings, always, "an application");
    };
    for derivation in &kind.derivations {
        if !settings.iter().any(|(name, _)| *name == derivation.setting)
            && let Some(value) = credential.derive(derivation)
        {
            settings.push((derivation.setting.clone(), value));
        }
    }
    let with = kind.secrets.first().map_or("", |secret| secret.name.as_str());
    all_there(settings, kind.required_settings.iter().chain(always), with)
}

/// Returns the settings, or an error that names those that are missing.
fn all_there<'a>(
    settings: Vec<(String, String)>,
    needed: impl Iterator<Item = &'a String>,
    with: &str,
) -> Result<Vec<(String, String)>, Error> {
    let missing = needed.filter(|needed| !settings.iter().any(|(name, _)| name == *needed));
    let missing = missing.map(|missing| {
        let message = format!("{missing} is required with {with}");
        Error::field(format!("missing_{missing}"), missing, message)
    });
    Error::merged(missing).map_or(Ok(settings), Err)
}

fn missing_credential(manifest: &ProviderManifest) -> Error {
    if manifest.name == DEFAULT_PROVIDER {
        let message = "an apns_p12 or apns_pem certificate is required for this call";
        return Error::field("missing_apns_certificate", "apns_p12", message);
    }
    let mut names = manifest.credentials.iter().flat_map(|kind| &kind.secrets).map(|secret| &secret.name);
    let first = names.next().map_or("credential", String::as_str);
    let others: String = names.map(|name| format!(" or {name}")).collect();
    Error::field(format!("missing_{first}"), first, format!("{first}{others} is required for this call"))
}
