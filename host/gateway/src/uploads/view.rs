//! What a tenant sees of its providers.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::Serialize;
use utoipa::ToSchema;

use super::policy::{SecretHost, secret_hosts};
use super::versions::{Code, Version, Versions};
use pushlet_model::contract::manifest::{Field, Origin, ProviderManifest, SecretFormat, TargetKind};
use pushlet_model::tenant::TenantId;
use pushlet_sandbox::{ComponentTrust, Instances, Provider};

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
    /// By credential: its secrets, and how each is written.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, String>>)]
    pub credentials: BTreeMap<String, BTreeMap<String, &'static str>>,
    /// All places that it may reach.
    pub endpoints: Vec<String>,
    /// Those that get secrets of applications, or what is made of them. The component's author chose them.
    pub secret_hosts: Vec<SecretHost>,
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
}

/// The logs of a provider, that of the active version first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProviderLog {
    pub versions: Vec<VersionLog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub refused_upload: Option<RefusedUpload>,
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
            })
            .collect();
        endpoints.sort();
        endpoints.dedup();
        let credentials = manifest.credentials.iter().map(|credential| {
            let secrets = &credential.secrets;
            let secrets = secrets.iter().map(|secret| (secret.name.clone(), format(secret.format)));
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
            credentials: credentials.collect(),
            endpoints,
            secret_hosts: secret_hosts(manifest).into_iter().collect(),
        }
    }
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
        SecretFormat::ServiceAccount => "service-account",
        SecretFormat::Text => "text",
    }
}
