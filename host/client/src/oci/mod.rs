//! Components in OCI registries, stored as `wkg` and other tools of WebAssembly store them (CNCF's "Wasm OCI artifact
//! layout"): one layer of `application/wasm`, and a configuration that names the interfaces.
//!
//! - [`reference`]: where an artifact is
//! - [`registry`]: a repository over HTTP
//! - [`signature`]: signatures by a key pair, as cosign makes them
//!
//! [`pull`] hands a component out only if its bytes have the digest that was asked for, or one that the key has signed.
//! Nothing is compiled here: what is refused has not been looked into.

mod reference;
mod registry;
mod signature;

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Arg, ArgMatches, value_parser};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub use reference::{Reference, SCHEME};
pub use registry::RegistryAccess;
use registry::{MANIFEST, Repository};
pub use signature::{PublicKey, SigningKey};

use crate::terminal::{self, given};
use pushlet_settings::Problem;
use reference::{digest_of, is_digest};

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// The configuration of what is an artifact, and no image, to cosign.
const SIGNATURE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The largest component in bytes, which is also the most that `providers.component_size` allows.
const LARGEST_COMPONENT: usize = 1 << 30;
const LARGEST_PAYLOAD: usize = 64 << 10;
/// Signatures of one artifact that are looked at.
const MOST_SIGNATURES: usize = 32;

/// A component, and what its configuration says of it.
pub struct Artifact {
    pub component: Vec<u8>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

/// Returns `--oci-username` and `--oci-password`.
pub fn arguments() -> [Arg; 2] {
    let text = |name: &'static str, variable, value| {
        Arg::new(name).long(name).value_name(value).env(variable).help_heading("Registry")
    };
    [
        text("oci-username", "PUSHLET_OCI_USERNAME", "NAME").help("Name at the OCI registry"),
        text("oci-password", "PUSHLET_OCI_PASSWORD", "SECRET")
            .hide_env_values(true)
            .help("Its password or token; better in the variable"),
    ]
}

/// Returns `--key FILE`.
pub fn key_argument() -> Arg {
    Arg::new("key")
        .long("key")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help_heading("Registry")
        .help("The public key that the component must be signed with (PEM, P-256); cosign.pub")
}

/// Reads the arguments of [`arguments`], and `--ca`.
pub fn access(matches: &ArgMatches) -> RegistryAccess {
    let (name, password) = (given(matches, "oci-username"), given(matches, "oci-password"));
    let login = (!name.is_empty()).then(|| (name.to_owned(), Zeroizing::new(password.to_owned())));
    RegistryAccess { login, roots: matches.get_one("ca").cloned().into_iter().collect() }
}

/// Reads the argument of [`key_argument`].
pub fn key(matches: &ArgMatches) -> Result<Option<PublicKey>, Problem> {
    matches.get_one::<PathBuf>("key").map(|path| PublicKey::read(path)).transpose()
}

/// Prints where an artifact is; the digest in it is what to keep.
pub fn print(matches: &ArgMatches, pinned: &Reference, signed: bool) -> Result<(), Problem> {
    if matches.get_flag("json") {
        return terminal::print_json(&json!({"reference": pinned.to_string(), "signed": signed}));
    }
    terminal::print_line(&pinned.to_string())
}

/// Stores a component, and its signature if there is a key. Returns where it is, with its digest.
pub async fn push(
    reference: &Reference,
    artifact: Artifact,
    key: Option<&SigningKey>,
    access: &RegistryAccess,
) -> Result<Reference, Problem> {
    let component = Bytes::from(artifact.component);
    let config = configuration(&component, &artifact.imports, &artifact.exports);
    let manifest = manifest(&descriptor(CONFIG, &config), &[descriptor(LAYER, &component)]);
    let digest = digest_of(&manifest);
    if let Some(wanted) = reference.digest.as_ref().filter(|wanted| **wanted != digest) {
        return Err(Problem::new(format_args!("the component's manifest is {digest}, and not {wanted}")));
    }
    let mut repository = Repository::new(reference, access)?;
    repository.put_blob(&config).await?;
    repository.put_blob(&component).await?;
    let pinned = reference.pinned(&digest);
    // The signature first: a tag never leads to a version without one.
    if let Some(key) = key {
        sign(&mut repository, &pinned, &digest, key).await?;
    }
    repository.put_manifest(&digest, &manifest).await?;
    if let Some(tag) = &reference.tag {
        repository.put_manifest(tag, &manifest).await?;
    }
    Ok(pinned)
}

/// Fetches a component. It is named by its digest, or signed with the key, or both; the signature is verified before
/// anything of the component is fetched. Returns it with where it is, with its digest.
pub async fn pull(
    reference: &Reference,
    key: Option<&PublicKey>,
    access: &RegistryAccess,
) -> Result<(Vec<u8>, Reference), Problem> {
    if reference.digest.is_none() && key.is_none() {
        return Err(Problem::new(format_args!(
            "{reference}: a tag can be moved by others; name the digest, as {reference}@sha256:…, or give --key"
        )));
    }
    let mut repository = Repository::new(reference, access)?;
    let name = reference.name();
    let missing = || Problem::new(format_args!("{reference}: the registry has no such artifact"));
    let manifest = repository.manifest(name).await?.ok_or_else(missing)?;
    let digest = digest_of(&manifest);
    if let Some(wanted) = reference.digest.as_ref().filter(|wanted| **wanted != digest) {
        return Err(Problem::new(format_args!(
            "{reference}: the registry sent {digest} in place of {wanted}"
        )));
    }
    let pinned = reference.pinned(&digest);
    if let Some(key) = key {
        verify(&mut repository, &pinned, &digest, key).await?;
    }
    let layer = component_layer(&manifest)
        .map_err(|why| Problem::new(format_args!("{pinned}: it is not one WebAssembly component: {why}")))?;
    let component = repository.blob(&layer.digest, layer.size).await?;
    Ok((component, pinned))
}

/// What a manifest says of one of its parts.
struct Descriptor {
    digest: String,
    size: usize,
}

impl Descriptor {
    /// Reads it if it is of this media type and at most so large.
    fn read(value: &Value, media_type: &str, most: usize) -> Result<Self, String> {
        let found = value["mediaType"].as_str().unwrap_or_default();
        if found != media_type {
            return Err(format!("a part is of the media type {found:?}, not {media_type}"));
        }
        let digest = value["digest"].as_str().filter(|digest| is_digest(digest));
        let digest = digest.ok_or("a part has no digest of SHA-256")?.to_owned();
        let size = value["size"].as_u64().and_then(|size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= most);
        let size =
            size.ok_or_else(|| format!("a part says that it has {} bytes, more than {most}", value["size"]))?;
        Ok(Self { digest, size })
    }
}

/// Returns the layer of a manifest that has one component and nothing else.
fn component_layer(manifest: &[u8]) -> Result<Descriptor, String> {
    let manifest: Value = serde_json::from_slice(manifest).map_err(|_| "its manifest is no JSON")?;
    if manifest["schemaVersion"] != 2 {
        return Err("its manifest is not of version 2".into());
    }
    let config = manifest["config"]["mediaType"].as_str().unwrap_or_default();
    if config != CONFIG {
        return Err(format!("its configuration is of the media type {config:?}, not {CONFIG}"));
    }
    match manifest["layers"].as_array().map(Vec::as_slice) {
        Some([layer]) => Descriptor::read(layer, LAYER, LARGEST_COMPONENT),
        layers => Err(format!("it has {} layers", layers.unwrap_or_default().len())),
    }
}

/// Looks for a signature of this digest by the key.
async fn verify(
    repository: &mut Repository<'_>,
    pinned: &Reference,
    digest: &str,
    key: &PublicKey,
) -> Result<(), Problem> {
    let refused = |why: &str| Problem::new(format_args!("{pinned}: {why}; nothing of it was loaded"));
    let signatures = repository.manifest(&signature::tag(digest)).await?;
    let signatures = signatures.ok_or_else(|| refused("it is not signed"))?;
    let signatures: Value = serde_json::from_slice(&signatures).unwrap_or_default();
    for layer in signatures["layers"].as_array().into_iter().flatten().take(MOST_SIGNATURES) {
        let Ok(part) = Descriptor::read(layer, signature::PAYLOAD, LARGEST_PAYLOAD) else { continue };
        let Some(signed) = layer["annotations"][signature::ANNOTATION].as_str() else { continue };
        let payload = repository.blob(&part.digest, part.size).await?;
        if key.has_signed(&payload, signed) {
            return match signature::names(&payload, digest) {
                true => Ok(()),
                false => Err(refused("its signature is that of something else")),
            };
        }
    }
    Err(refused("none of its signatures is by the key"))
}

/// Adds a signature to those that are there.
async fn sign(
    repository: &mut Repository<'_>,
    pinned: &Reference,
    digest: &str,
    key: &SigningKey,
) -> Result<(), Problem> {
    let payload = signature::payload(&format!("{}/{}", pinned.host, pinned.repository), digest);
    let tag = signature::tag(digest);
    let there = repository.manifest(&tag).await?.unwrap_or_default();
    let there: Value = serde_json::from_slice(&there).unwrap_or_default();
    let mut layers: Vec<Value> = there["layers"].as_array().cloned().unwrap_or_default();
    let payload_digest = digest_of(&payload);
    let public = key.public();
    let is_ours = |layer: &Value| {
        let signed = layer["annotations"][signature::ANNOTATION].as_str();
        layer["digest"] == payload_digest && signed.is_some_and(|signed| public.has_signed(&payload, signed))
    };
    if layers.iter().any(is_ours) {
        return Ok(());
    }
    if layers.len() >= MOST_SIGNATURES {
        return Err(Problem::new(format_args!("{pinned}: it has {MOST_SIGNATURES} signatures already")));
    }
    let mut layer = descriptor(signature::PAYLOAD, &payload);
    layer["annotations"] = json!({ signature::ANNOTATION: key.sign(&payload)? });
    layers.push(layer);
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": digests}});
    let config = Bytes::from(config.to_string());
    repository.put_blob(&config).await?;
    repository.put_blob(&Bytes::from(payload)).await?;
    repository.put_manifest(&tag, &manifest(&descriptor(SIGNATURE_CONFIG, &config), &layers)).await
}

/// Returns what is known of a component. The same component gives the same bytes: there is no time in them.
fn configuration(component: &[u8], imports: &[String], exports: &[String]) -> Bytes {
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest_of(component)],
        "component": {"exports": exports, "imports": imports},
    });
    Bytes::from(config.to_string())
}

fn manifest(config: &Value, layers: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
        .to_string()
        .into_bytes()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest_of(bytes), "size": bytes.len()})
}
