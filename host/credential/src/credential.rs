//! One application's credential: parsed from its upload, checked, and ready to authenticate.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::files::certificate::CertificateNeed;
use super::files::identity::{CertificateIdentity, ClientCertificate};
use super::files::keys::TokenKey;
use super::files::pem::ServiceAccount;
use super::files::{CredentialError, FileFault, FilePassword, Secret, UploadedSecrets, pem, pkcs12};
use super::manifest;
use super::tokens::token::TokenMemo;
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{
    Credential as CredentialKind, Derivation, Property, Secret as SecretField, SecretFormat,
};
use pushlet_model::digest::DigestParts;

/// Largest upload. Identities with a chain take 5 to 10 KiB.
const LARGEST_FILE: usize = 256 << 10;

const LONGEST_TEXT: usize = 4 << 10;

/// Returns the upload fields of some credential kinds: those of secrets and those of their passwords.
pub fn upload_fields(kinds: &[CredentialKind]) -> impl Iterator<Item = &str> {
    let secrets = kinds.iter().flat_map(|kind| kind.secrets.iter().chain(&kind.companions));
    secrets.flat_map(|secret| [Some(secret.name.as_str()), secret.password.as_deref()]).flatten()
}

/// The intended use of a credential. A file may hold several certificates, and not all can push.
pub struct CredentialPurpose {
    pub environment: Environment,
    /// Decides whether a certificate is valid.
    pub now: SystemTime,
    /// The settings that the application was given.
    pub settings: Vec<(String, String)>,
}

impl CredentialPurpose {
    fn need<'a>(&'a self, kind: &'a CredentialKind) -> CertificateNeed<'a> {
        let of_uid = |derivation: &&Derivation| derivation.property == Property::CertificateSubjectUid;
        let setting = kind.derivations.iter().find(of_uid).map(|derivation| derivation.setting.as_str());
        let given = |setting| {
            let value = self.settings.iter().find(|(name, value)| name == setting && !value.is_empty());
            value.map(|(_, value)| value.as_str())
        };
        let topic = setting.map(|setting| (setting, given(setting)));
        CertificateNeed { environment: self.environment, now: self.now, topic }
    }
}

/// One application's credential: parsed, checked, ready to authenticate.
pub struct Credential {
    kind: String,
    field: String,
    material: CredentialMaterial,
    /// Text secrets that belong to it, by name.
    companions: Vec<(String, Secret)>,
    fingerprint: [u8; 32],
    pub(crate) last_token: TokenMemo,
}

enum CredentialMaterial {
    Identity(Box<CertificateIdentity>),
    Key(Arc<TokenKey>),
    ServiceAccount(Box<ServiceAccount>),
    Text(Secret),
}

/// The public properties of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialSummary {
    /// The manifest's name of the credential kind.
    pub credential: String,
    /// The field that the secret was uploaded in.
    pub field: String,
    /// SHA-256 in hex, of the certificate or of the public key. A text has none, for it could be guessed.
    pub fingerprint: Option<String>,
    /// The common name in the certificate's subject, or the service account's `client_email`.
    pub subject: Option<String>,
    /// The topics in Apple's certificate extension, else the subject's UID.
    pub topics: Vec<String>,
    /// `development` and `production`, as Apple marks its certificates.
    pub environments: Vec<String>,
    /// End of the certificate's validity, RFC 3339.
    pub not_after: Option<String>,
}

impl Credential {
    /// Returns true if parsing the upload may take long. Only a text never does: a file may ask for any number of
    /// rounds of key derivation within the bounds, and a key is checked with arithmetic.
    pub fn is_costly(kinds: &[CredentialKind], uploads: &UploadedSecrets) -> bool {
        let first =
            kinds.iter().flat_map(|kind| &kind.secrets).find(|secret| uploads.get(&secret.name).is_some());
        first.is_some_and(|secret| secret.format != SecretFormat::Text)
    }

    /// Parses the first secret that was uploaded for one of the manifest's credential kinds; `None` if
    /// there is none.
    ///
    /// Takes up to a second for a file with a costly key derivation: not for an async thread.
    pub fn parse(
        kinds: &[CredentialKind],
        uploads: &UploadedSecrets,
        purpose: &CredentialPurpose,
    ) -> Result<Option<Self>, CredentialError> {
        let mut fields = kinds.iter().flat_map(|kind| kind.secrets.iter().map(move |secret| (kind, secret)));
        let Some((kind, secret, bytes)) =
            fields.find_map(|(kind, secret)| Some((kind, secret, uploads.get(&secret.name)?)))
        else {
            return Ok(None);
        };
        let material = read(kind, secret, bytes, uploads, purpose)
            .map_err(|fault| fault.into_error(&secret.name, secret.format))?;
        let companions = companions(kind, uploads)?;
        // Computed once: every send compares it.
        let fingerprint = fingerprint(&material, &companions);
        let (kind, field) = (kind.name.clone(), secret.name.clone());
        let last_token = TokenMemo::default();
        Ok(Some(Self { kind, field, material, companions, fingerprint, last_token }))
    }

    /// Returns the name of its kind in the manifest.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns a digest that distinguishes credentials: connections of different credentials must not be shared. Equal
    /// for the same certificate, key, account or text within this process.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Returns the value of a setting that is read from the credential, if it is there.
    pub fn derive(&self, derivation: &Derivation) -> Option<String> {
        match (&derivation.property, &self.material) {
            (Property::CertificateSubjectUid, CredentialMaterial::Identity(identity)) => {
                identity.info.uid.clone()
            }
            (Property::CertificateTopics, CredentialMaterial::Identity(identity)) => {
                Some(identity.info.topics.join(",")).filter(|topics| !topics.is_empty())
            }
            (Property::ServiceAccountProperty(name), CredentialMaterial::ServiceAccount(account)) => {
                account.property(name).map(str::to_owned)
            }
            (Property::PublicKey, CredentialMaterial::Key(key)) => {
                Some(URL_SAFE_NO_PAD.encode(key.public_key()))
            }
            _ => None,
        }
    }

    /// Returns its public properties.
    pub fn summary(&self) -> CredentialSummary {
        let mut summary = CredentialSummary {
            credential: self.kind.clone(),
            field: self.field.clone(),
            fingerprint: Some(hex::encode(self.fingerprint)),
            subject: None,
            topics: Vec::new(),
            environments: Vec::new(),
            not_after: None,
        };
        match &self.material {
            CredentialMaterial::Identity(identity) => {
                let info = &identity.info;
                summary.subject = info.common_name.clone();
                summary.topics = if info.topics.is_empty() {
                    info.uid.iter().cloned().collect()
                } else {
                    info.topics.clone()
                };
                summary.environments = info.environments.iter().map(|name| (*name).to_owned()).collect();
                summary.not_after = Some(info.not_after());
            }
            CredentialMaterial::ServiceAccount(account) => {
                summary.subject = account.property("client_email").map(str::to_owned);
            }
            CredentialMaterial::Key(_) => {}
            CredentialMaterial::Text(_) => summary.fingerprint = None,
        }
        summary
    }

    /// Returns the end of the certificate's validity, in seconds since the Unix epoch; None: it is no certificate.
    pub fn ends_at(&self) -> Option<i64> {
        match &self.material {
            CredentialMaterial::Identity(identity) => Some(identity.info.ends_at()),
            _ => None,
        }
    }

    /// Returns the TLS client certificate, if it is one.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        match &self.material {
            CredentialMaterial::Identity(identity) => Some(&identity.certificate),
            _ => None,
        }
    }

    /// Returns the key that signs tokens, if the named secret is or holds one.
    pub(crate) fn token_key(&self, secret: &str) -> Option<&Arc<TokenKey>> {
        match &self.material {
            _ if secret != self.field => None,
            CredentialMaterial::Key(key) => Some(key),
            CredentialMaterial::ServiceAccount(account) => Some(&account.key),
            _ => None,
        }
    }

    pub(crate) fn property(&self, secret: &str, name: &str) -> Option<&str> {
        match &self.material {
            CredentialMaterial::ServiceAccount(account) if secret == self.field => account.property(name),
            _ => None,
        }
    }

    /// Returns the secrets of the format `text`, by name, for a stream that they are written into.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let own = match &self.material {
            CredentialMaterial::Text(text) => Some((self.field.as_str(), text.expose())),
            _ => None,
        };
        own.into_iter().chain(self.companions.iter().map(|(name, text)| (name.as_str(), text.expose())))
    }

    pub(crate) fn text(&self, secret: &str) -> Option<&[u8]> {
        match &self.material {
            CredentialMaterial::Text(text) if secret == self.field => Some(text.expose()),
            _ => {
                let companion = self.companions.iter().find(|(name, _)| name == secret);
                companion.map(|(_, text)| text.expose())
            }
        }
    }
}

impl CredentialMaterial {
    fn fingerprint(&self) -> [u8; 32] {
        match self {
            Self::Identity(identity) => identity.certificate.fingerprint,
            Self::Key(key) => *key.fingerprint(),
            Self::ServiceAccount(account) => account.fingerprint(),
            Self::Text(text) => text_fingerprint(text.expose()),
        }
    }
}

/// Reads the secrets that a credential needs beside its own.
fn companions(
    kind: &CredentialKind,
    uploads: &UploadedSecrets,
) -> Result<Vec<(String, Secret)>, CredentialError> {
    let companion = |secret: &SecretField| {
        let bytes = uploads.get(&secret.name).ok_or_else(|| CredentialError {
            code: format!("missing_{}", secret.name),
            message: format!("{} is required for the credential {}", secret.name, kind.name),
            field: secret.name.clone(),
        })?;
        let text = read_text(bytes).map_err(|fault| fault.into_error(&secret.name, secret.format))?;
        Ok((secret.name.clone(), text))
    };
    kind.companions.iter().map(companion).collect()
}

fn fingerprint(material: &CredentialMaterial, companions: &[(String, Secret)]) -> [u8; 32] {
    let own = material.fingerprint();
    if companions.is_empty() {
        return own;
    }
    let mut parts = DigestParts::new();
    parts.add(&own);
    companions.iter().for_each(|(_, secret)| parts.add(&text_fingerprint(secret.expose())));
    parts.finish()
}

/// Keyed with a random key of this process, so that it says nothing about the text elsewhere.
pub(crate) fn text_fingerprint(text: &[u8]) -> [u8; 32] {
    static KEY: OnceLock<Option<hmac::Key>> = OnceLock::new();
    let key = KEY.get_or_init(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok());
    let mut fingerprint = [0; 32];
    if let Some(key) = key {
        fingerprint.copy_from_slice(hmac::sign(key, text).as_ref());
    }
    fingerprint
}

fn read(
    kind: &CredentialKind,
    secret: &SecretField,
    bytes: &[u8],
    uploads: &UploadedSecrets,
    purpose: &CredentialPurpose,
) -> Result<CredentialMaterial, FileFault> {
    if bytes.len() > LARGEST_FILE {
        return Err(format!("it is larger than {} KiB", LARGEST_FILE >> 10).into());
    }
    let field = secret.password.as_deref();
    let value = field.and_then(|field| uploads.get(field)).map(std::str::from_utf8).transpose();
    let password =
        FilePassword { value: value.map_err(|_| FileFault::from("its password is not UTF-8"))?, field };
    match secret.format {
        SecretFormat::Pkcs12Identity => {
            let identity =
                CertificateIdentity::assemble(pkcs12::parse(bytes, password)?, &purpose.need(kind))?;
            Ok(CredentialMaterial::Identity(Box::new(identity)))
        }
        SecretFormat::PemIdentity => {
            let identity = CertificateIdentity::assemble(pem::parse(bytes, password)?, &purpose.need(kind))?;
            Ok(CredentialMaterial::Identity(Box::new(identity)))
        }
        SecretFormat::Pkcs8Key => {
            let algorithm = manifest::algorithm(kind).ok_or(FileFault::Unreadable)?;
            let key = TokenKey::parse(&pem::parse_key(bytes, password)?, algorithm)?;
            Ok(CredentialMaterial::Key(Arc::new(key)))
        }
        SecretFormat::ServiceAccount => {
            let algorithm = manifest::algorithm(kind).ok_or(FileFault::Unreadable)?;
            let needed = manifest::needed_properties(kind, &secret.name);
            let account = ServiceAccount::parse(bytes, algorithm, &needed)?;
            Ok(CredentialMaterial::ServiceAccount(Box::new(account)))
        }
        SecretFormat::P256Key => {
            Ok(CredentialMaterial::Key(Arc::new(TokenKey::parse_p256(bytes, |file| {
                pem::parse_key(file, password)
            })?)))
        }
        SecretFormat::Text => read_text(bytes).map(CredentialMaterial::Text),
    }
}

/// It becomes a part of a header, so it must be printable.
fn read_text(bytes: &[u8]) -> Result<Secret, FileFault> {
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > LONGEST_TEXT {
        return Err(format!("it is longer than {LONGEST_TEXT} bytes").into());
    }
    if !text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Err("it holds characters other than printable ASCII".into());
    }
    Ok(Secret::new(text.to_vec()))
}
