//! What a tenant sees of its providers.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use utoipa::ToSchema;

use super::policy::{SecretHost, secret_hosts};
use super::versions::{Code, Version, Versions};
use pushlet_model::contract::manifest::{
    Credential, Field, Origin, ProviderManifest, Secret, SecretFormat, TargetKind, ValueKind,
};
use pushlet_model::tenant::TenantId;
use pushlet_sandbox::{CallRecord, ComponentTrust, GuestLog, Instances, Provider};

/// A provider as its tenant sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Provider)]
pub struct ProviderView {
    pub name: String,
    /// `built-in`, `operator` (everybody has it), or `own`.
    pub origin: &'static str,
    /// `active`, `quarantined`, `loading` (it is loaded when it is needed, or before), or `unusable`.
    pub state: &'static str,
    /// SHA-256 of the active component file, in hex.
    pub digest: String,
    /// Why it is unusable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub fault: Option<String>,
    /// Seconds until it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub quarantined_for: Option<f64>,
    /// Calls that ended in a trap, a time-out or a limit, or with an answer that breaks the contract.
    pub failures: u64,
    /// The active one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub manifest: Option<ManifestView>,
}

/// A provider in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProviderEntry {
    pub name: String,
    /// `built-in`, `operator` (everybody has it), or `own`.
    pub origin: &'static str,
    /// `active`, `quarantined`, `loading` (it is loaded when it is needed, or before), or `unusable`.
    pub state: &'static str,
    /// SHA-256 of the active component file, in hex.
    pub digest: String,
    /// As its manifest says; null where it is not loaded.
    pub version: Option<String>,
    pub title: Option<String>,
    /// The kinds of credential that an application may hold: one of them.
    pub credentials: Vec<String>,
}

impl From<ProviderView> for ProviderEntry {
    fn from(view: ProviderView) -> Self {
        let ProviderView { name, origin, state, digest, manifest, .. } = view;
        let (version, title, credentials) = match manifest {
            Some(manifest) => {
                (Some(manifest.version), Some(manifest.title), manifest.credentials.into_keys().collect())
            }
            None => (None, None, Vec::new()),
        };
        Self { name, origin, state, digest, version, title, credentials }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ProviderVersion)]
pub struct VersionView {
    pub digest: String,
    pub active: bool,
    /// Bytes.
    pub size: u64,
    /// RFC 3339.
    pub uploaded: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub quarantined_for: Option<f64>,
}

/// What callers need of a manifest.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ProviderManifest)]
pub struct ManifestView {
    pub title: String,
    pub vendor: String,
    pub version: String,
    pub description: String,
    #[schema(value_type = Vec<String>)]
    pub targets: Vec<&'static str>,
    /// By name.
    pub settings: BTreeMap<String, String>,
    /// By name.
    pub options: BTreeMap<String, String>,
    /// Options of a target, by name.
    pub target_options: BTreeMap<String, String>,
    /// By credential: its secrets, and how each is written.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, String>>)]
    pub credentials: BTreeMap<String, BTreeMap<String, &'static str>>,
    /// What an application is registered with, for each kind of credential.
    pub credential_forms: Vec<CredentialForm>,
    /// How the value of each option is written.
    pub option_kinds: BTreeMap<String, OptionKind>,
    /// All places that it may reach.
    pub endpoints: Vec<String>,
    /// Those that get secrets of applications, or what is made of them. The component's author chose them.
    pub secret_hosts: Vec<SecretHost>,
}

/// What an application with one kind of credential is registered with.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CredentialForm {
    /// The kind of credential.
    pub name: String,
    /// One of these is needed.
    pub secrets: Vec<SecretField>,
    /// All of these are needed as well.
    pub companions: Vec<SecretField>,
    pub required_settings: Vec<String>,
    /// Settings that are read from the credential itself if the registration leaves them out.
    pub derived_settings: Vec<String>,
}

/// A secret of a registration.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SecretField {
    pub name: String,
    /// `pkcs12-identity`, `pem-identity`, `pkcs8-key`, `p256-key`, `service-account` or `text`.
    pub format: &'static str,
    pub description: String,
    /// The field of its password; null: it has none.
    pub password: Option<String>,
}

/// How a value is written.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OptionKind {
    /// `text`, `integer`, `number`, `boolean` or `json`.
    pub kind: &'static str,
    /// The values that are allowed; empty: all of this kind.
    pub choices: Vec<String>,
}

/// The last upload of a tenant that was not taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RefusedUpload {
    pub name: String,
    pub digest: String,
    pub error: String,
    pub message: String,
    /// What it printed, and where it trapped.
    pub log: String,
}

/// What a version printed, and where it trapped.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VersionLog {
    pub digest: String,
    pub log: String,
    /// The last calls, the latest first: up to 50 that failed or printed something, and of an uploaded provider up to 20
    /// others.
    pub calls: Vec<CallView>,
}

/// One call of a component.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ProviderCall)]
pub struct CallView {
    /// RFC 3339.
    pub at: String,
    /// The function: `check-application`, `encode`, `decode`, `management.encode`, `management.decode`, or one of
    /// `connection`.
    pub call: &'static str,
    pub application_id: String,
    /// The `x-request-id` of the send; missing: it was for none, or for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
    /// Milliseconds.
    pub ms: f64,
    /// The end of what it printed in this call.
    pub printed: String,
    /// Why it failed: it trapped, took too long or too much, or its output breaks the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
}

/// The logs of a provider, that of the active version first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProviderLog {
    pub versions: Vec<VersionLog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub refused_upload: Option<RefusedUpload>,
}

impl VersionLog {
    pub(super) fn of(digest: String, log: &GuestLog) -> Self {
        let calls = log.calls().into_iter().map(CallView::from).collect();
        Self { digest, log: log.text(), calls }
    }
}

impl From<CallRecord> for CallView {
    fn from(record: CallRecord) -> Self {
        let CallRecord { at, call, application, request, took, printed, error } = record;
        Self {
            at: humantime::format_rfc3339_millis(at.max(UNIX_EPOCH)).to_string(),
            call,
            application_id: application,
            request_id: request.map(|id| id.to_string()),
            ms: took.as_secs_f64() * 1000.0,
            printed,
            error,
        }
    }
}

impl ProviderView {
    /// Returns the view of a provider that all tenants share.
    pub(super) fn shared(provider: &Provider, tenant: &TenantId) -> Self {
        let origin = if provider.trust() == ComponentTrust::BuiltIn { "built-in" } else { "operator" };
        let instances = provider.instances(tenant);
        Self {
            name: provider.manifest().name.clone(),
            origin,
            state: state(&instances),
            digest: provider.digest().to_owned(),
            fault: None,
            quarantined_for: quarantined_for(&instances),
            failures: instances.failures(),
            versions: Vec::new(),
            manifest: Some(ManifestView::of(provider.manifest())),
        }
    }

    /// Returns the view of a tenant's own provider.
    pub(super) fn own(name: &str, versions: &Versions, tenant: &TenantId) -> Self {
        let active = versions.active();
        let provider = active.and_then(Version::provider);
        let instances = provider.map(|provider| provider.instances(tenant));
        Self {
            name: name.to_owned(),
            origin: "own",
            state: instances.as_deref().map_or_else(|| state_without_code(active), state),
            digest: active.map(|version| version.stored.digest.clone()).unwrap_or_default(),
            fault: active.and_then(fault),
            quarantined_for: instances.as_deref().and_then(quarantined_for),
            failures: instances.as_deref().map_or(0, Instances::failures),
            versions: versions
                .latest_first()
                .enumerate()
                .map(|(place, version)| VersionView::of(version, place == 0))
                .collect(),
            manifest: provider.map(|provider| ManifestView::of(provider.manifest())),
        }
    }
}

impl VersionView {
    fn of(version: &Version, active: bool) -> Self {
        let stored = &version.stored;
        Self {
            digest: stored.digest.clone(),
            active,
            size: stored.size,
            uploaded: humantime::format_rfc3339_seconds(stored.uploaded.max(UNIX_EPOCH)).to_string(),
            quarantined_for: version.quarantined().map(|wait| wait.as_secs_f64()),
        }
    }
}

impl ManifestView {
    fn of(manifest: &ProviderManifest) -> Self {
        let described = |fields: &[Field]| {
            fields.iter().map(|field| (field.name.clone(), field.description.clone())).collect()
        };
        let mut endpoints: Vec<String> = manifest
            .endpoints
            .iter()
            .map(|endpoint| match &endpoint.origin {
                Origin::Fixed(origin) => origin.clone(),
                Origin::AnyHttps => "https://*".into(),
                Origin::Configured => "configured".into(),
            })
            .collect();
        endpoints.sort();
        endpoints.dedup();
        let credentials = manifest.credentials.iter().map(|credential| {
            let secrets = credential.secrets.iter().chain(&credential.companions);
            let secrets = secrets.map(|secret| (secret.name.clone(), format(secret.format)));
            (credential.name.clone(), secrets.collect())
        });
        Self {
            title: manifest.title.clone(),
            vendor: manifest.vendor.clone(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            targets: manifest.targets.iter().map(kind).collect(),
            settings: described(&manifest.settings),
            options: described(&manifest.options),
            target_options: described(&manifest.target_options),
            credentials: credentials.collect(),
            credential_forms: manifest.credentials.iter().map(CredentialForm::of).collect(),
            option_kinds: manifest.options.iter().map(option_kind).collect(),
            endpoints,
            secret_hosts: secret_hosts(manifest).into_iter().collect(),
        }
    }
}

impl CredentialForm {
    fn of(credential: &Credential) -> Self {
        let secret = |secret: &Secret| SecretField {
            name: secret.name.clone(),
            format: format(secret.format),
            description: secret.description.clone(),
            password: secret.password.clone(),
        };
        let derivations = credential.derivations.iter();
        Self {
            name: credential.name.clone(),
            secrets: credential.secrets.iter().map(secret).collect(),
            companions: credential.companions.iter().map(secret).collect(),
            required_settings: credential.required_settings.clone(),
            derived_settings: derivations.map(|derivation| derivation.setting.clone()).collect(),
        }
    }
}

fn option_kind(option: &Field) -> (String, OptionKind) {
    let kind = match option.kind {
        ValueKind::Text => "text",
        ValueKind::Integer => "integer",
        ValueKind::Number => "number",
        ValueKind::Boolean => "boolean",
        ValueKind::Json => "json",
    };
    (option.name.clone(), OptionKind { kind, choices: option.choices.clone() })
}

fn state(instances: &Instances) -> &'static str {
    if instances.quarantined().is_some() { "quarantined" } else { "active" }
}

fn state_without_code(version: Option<&Version>) -> &'static str {
    match version.map(|version| &version.code) {
        Some(Code::Absent | Code::Loading(_)) => "loading",
        _ => "unusable",
    }
}

fn fault(version: &Version) -> Option<String> {
    match &version.code {
        Code::Unusable(why) => Some(why.clone()),
        Code::Failed(error, _) => Some(error.message.clone().into_owned()),
        _ => None,
    }
}

fn quarantined_for(instances: &Instances) -> Option<f64> {
    instances.quarantined().map(|wait| wait.as_secs_f64())
}

fn kind(kind: &TargetKind) -> &'static str {
    match kind {
        TargetKind::Device => "device",
        TargetKind::Topic => "topic",
        TargetKind::Condition => "condition",
        TargetKind::Channel => "channel",
        TargetKind::Url => "url",
    }
}

fn format(format: SecretFormat) -> &'static str {
    match format {
        SecretFormat::Pkcs12Identity => "pkcs12-identity",
        SecretFormat::PemIdentity => "pem-identity",
        SecretFormat::Pkcs8Key => "pkcs8-key",
        SecretFormat::P256Key => "p256-key",
        SecretFormat::ServiceAccount => "service-account",
        SecretFormat::Text => "text",
    }
}
