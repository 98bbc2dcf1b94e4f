//! The throw-away credentials: made at the first start, read at every start.
//!
//! They stay the same as long as they are complete and valid for a week more, so that a client that
//! was given `ca.pem` or a certificate goes on working when the simulator is started again.

mod files;
mod make;
mod p12;

use std::path::{Path, PathBuf};

use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use x509_parser::extensions::GeneralName;

use crate::error::StartError;
pub use make::{CertificateKind, CertificateSpec, IssuedCertificate};

/// Password of both PKCS#12 files.
pub(crate) const PASSWORD: &str = "pushlet";
/// Bundle id that the certificate is for.
pub(crate) const TOPIC: &str = "com.example.app";
/// Key id of `apns.p8`.
pub(crate) const KEY_ID: &str = "SIMKEY0001";
/// Team id of `apns.p8`.
pub(crate) const TEAM_ID: &str = "SIMTEAM001";
/// Project id of the service account.
pub(crate) const PROJECT_ID: &str = "pushlet-simulator";
/// Project number of the service account, which FCM takes in place of the id.
pub(crate) const PROJECT_NUMBER: &str = "108000000001";

/// Project id of the Huawei service account.
pub(crate) const HMS_PROJECT_ID: &str = "388421841222012345";
/// The `iss` of its tokens.
pub(crate) const HMS_SUB_ACCOUNT: &str = "110000001";

/// A certificate with less than this left is made anew.
const SECONDS_LEFT: i64 = 7 * 24 * 3600;

/// The files and what a client has to know about them.
#[derive(Debug, Clone)]
pub struct CredentialFiles {
    /// The directory of all files.
    pub directory: PathBuf,
    /// The authority that the simulator's server certificates come from; clients must trust it.
    pub ca_pem: PathBuf,
    /// Client certificate and RSA key as today's tools write PKCS#12: AES-256 and a SHA-256 MAC.
    pub apns_p12: PathBuf,
    /// The password of [`Self::apns_p12`]: the empty one, so that it needs none to be given.
    pub apns_p12_password: String,
    /// The same as Keychain exported it: RC2-40 certificates, 3DES key, SHA-1 MAC.
    pub apns_legacy_p12: PathBuf,
    /// The password of [`Self::apns_legacy_p12`].
    pub apns_legacy_p12_password: String,
    /// The same as PEM: certificate, then PKCS#8 key.
    pub apns_pem: PathBuf,
    /// A certificate for VoIP pushes and its key, PEM; its topic is `com.example.app.voip`.
    pub apns_voip_pem: PathBuf,
    /// A certificate of a device management server; its topic is its UID.
    pub apns_mdm_pem: PathBuf,
    /// A certificate of a website; its topic is `web.com.example`.
    pub apns_website_pem: PathBuf,
    /// A certificate for Wallet passes; its topic is `pass.com.example.coupon`.
    pub apns_pass_pem: PathBuf,
    /// A signing key for provider tokens.
    pub apns_p8: PathBuf,
    /// The key id (`kid`) of [`Self::apns_p8`].
    pub apns_key_id: String,
    /// The team id (`iss`) of [`Self::apns_p8`].
    pub apns_team_id: String,
    /// The one topic of the certificates; a provider token may use any topic.
    pub apns_topic: String,
    /// A service account whose `token_uri` is this simulator's.
    pub fcm_service_account: PathBuf,
    /// Its project.
    pub fcm_project_id: String,
    /// A service account of Huawei Push Kit, for the API v3.
    pub hms_service_account: PathBuf,
    /// Its project.
    pub hms_project_id: String,
}

impl CredentialFiles {
    fn in_directory(directory: &Path) -> CredentialFiles {
        CredentialFiles {
            directory: directory.to_owned(),
            ca_pem: directory.join("ca.pem"),
            apns_p12: directory.join("apns.p12"),
            apns_p12_password: String::new(),
            apns_legacy_p12: directory.join("apns-legacy.p12"),
            apns_legacy_p12_password: PASSWORD.to_owned(),
            apns_pem: directory.join("apns.pem"),
            apns_voip_pem: directory.join("apns-voip.pem"),
            apns_mdm_pem: directory.join("apns-mdm.pem"),
            apns_website_pem: directory.join("apns-website.pem"),
            apns_pass_pem: directory.join("apns-pass.pem"),
            apns_p8: directory.join("apns.p8"),
            apns_key_id: KEY_ID.to_owned(),
            apns_team_id: TEAM_ID.to_owned(),
            apns_topic: TOPIC.to_owned(),
            fcm_service_account: directory.join("fcm-service-account.json"),
            fcm_project_id: PROJECT_ID.to_owned(),
            hms_service_account: directory.join("hms-service-account.json"),
            hms_project_id: HMS_PROJECT_ID.to_owned(),
        }
    }

    /// The certificates that are for more special things than an app, and their topics.
    pub(crate) fn other_kinds(&self) -> [(&Path, CertificateKind, &'static str); 4] {
        [
            (&self.apns_voip_pem, CertificateKind::Voip, "com.example.app.voip"),
            (
                &self.apns_mdm_pem,
                CertificateKind::Mdm,
                "com.apple.mgmt.External.0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
            ),
            (&self.apns_website_pem, CertificateKind::Website, "web.com.example"),
            (&self.apns_pass_pem, CertificateKind::PassType, "pass.com.example.coupon"),
        ]
    }

    fn ca_key(&self) -> PathBuf {
        self.directory.join("ca-key.pem")
    }

    fn server_pem(&self) -> PathBuf {
        self.directory.join("server.pem")
    }
}

/// What the simulator needs of its credentials in memory.
pub(crate) struct Material {
    pub files: CredentialFiles,
    pub ca: CertificateDer<'static>,
    ca_key: KeyPair,
    pub server_certificate: CertificateDer<'static>,
    pub server_key: PrivateKeyDer<'static>,
    /// Uncompressed P-256 point of `apns.p8`.
    pub provider_public_key: Vec<u8>,
    pub account: Account,
}

/// The service account, as Google knows it.
pub(crate) struct Account {
    pub client_email: String,
    pub private_key_id: String,
    /// PKCS#1 RSA public key, DER.
    pub public_key: Vec<u8>,
}

/// Reads the credentials in `directory`; makes all of them anew when one is missing, broken or about to expire.
pub(crate) fn load_or_create(directory: &Path, token_uri: &str) -> Result<Material, StartError> {
    let files = CredentialFiles::in_directory(directory);
    files::make_directory(directory)?;
    let _lock = files::lock(directory)?;
    if let Ok(material) = load(&files, token_uri) {
        return Ok(material);
    }
    make::all(&files)?;
    load(&files, token_uri)
}

/// Makes throw-away credentials of every kind, for a program that needs no simulator.
///
/// # Errors
/// The directory cannot be written, or a key cannot be made.
pub fn make_credentials(directory: &Path) -> Result<CredentialFiles, StartError> {
    load_or_create(directory, "https://oauth2.googleapis.com/token").map(|material| material.files)
}

/// A new authority, in memory alone.
pub(crate) fn new_authority() -> Result<(CertificateDer<'static>, Issuer<'static, KeyPair>), StartError> {
    let key = new_key()?;
    let certificate = make::ca_params().self_signed(&key).map_err(broken)?;
    Ok((certificate.der().clone(), Issuer::new(make::ca_params(), key)))
}

/// A new P-256 key.
pub(crate) fn new_key() -> Result<KeyPair, StartError> {
    make::ec_key()
}

/// A certificate of a server that is found by this name or address.
pub(crate) fn server_certificate_for(
    name: &str,
    key: &KeyPair,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<CertificateDer<'static>, StartError> {
    let certificate = make::server_params(vec![name.to_owned()])?.signed_by(key, issuer).map_err(broken)?;
    Ok(certificate.der().clone())
}

/// A further client certificate of the same authority.
pub(crate) fn issue(material: &Material, spec: &CertificateSpec) -> Result<IssuedCertificate, StartError> {
    let key = make::ec_key()?;
    let certificate = make::client_certificate(spec, &key, &material.ca_key)?;
    Ok(IssuedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn load(files: &CredentialFiles, token_uri: &str) -> Result<Material, StartError> {
    let ca = certificate(&files.ca_pem)?;
    let server_certificate = certificate(&files.server_pem())?;
    names_services(&server_certificate)?;
    certificate(&files.apns_pem)?;
    for (path, ..) in files.other_kinds() {
        certificate(path)?;
    }
    for p12 in [&files.apns_p12, &files.apns_legacy_p12] {
        files::read(p12)?;
    }
    let server_key = PrivateKeyDer::from_pem_slice(&files::read(&files.server_pem())?).map_err(broken)?;
    let provider_key = key(&files.apns_p8)?;
    Ok(Material {
        ca,
        ca_key: key(&files.ca_key())?,
        server_certificate,
        server_key,
        provider_public_key: provider_key.der_bytes().to_vec(),
        account: account(&files.fcm_service_account, token_uri)?,
        files: files.clone(),
    })
}

/// One that was made before the services' names stood in it is made anew.
fn names_services(der: &CertificateDer<'_>) -> Result<(), StartError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(broken)?;
    let names = parsed.subject_alternative_name().map_err(broken)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let has =
        |wanted: &str| names.iter().any(|name| matches!(name, GeneralName::DNSName(name) if *name == wanted));
    match make::SERVICE_NAMES.iter().find(|name| !has(name)) {
        None => Ok(()),
        Some(name) => Err(broken(format!("the server certificate lacks {name}"))),
    }
}

/// Reads the service account, and points it at this simulator's token endpoint if it is not.
fn account(path: &Path, token_uri: &str) -> Result<Account, StartError> {
    let mut json: Value = serde_json::from_slice(&files::read(path)?).map_err(broken)?;
    let text = |json: &Value, name: &str| {
        let value = json.get(name).and_then(Value::as_str).map(str::to_owned);
        value.ok_or_else(|| StartError::Make(format!("the service account has no {name}")))
    };
    if text(&json, "token_uri")? != token_uri {
        let Some(object) = json.as_object_mut() else { return Err(broken("not an object")) };
        object.insert("token_uri".to_owned(), Value::from(token_uri));
        files::write(path, make::pretty(&json).as_bytes())?;
    }
    // Another vendor's file, and for the sake of a fast first start the same key.
    let huawei = make::pretty(&make::hms_service_account(&json));
    let hms_path = path.with_file_name("hms-service-account.json");
    if files::read(&hms_path).ok().as_deref() != Some(huawei.as_bytes()) {
        files::write(&hms_path, huawei.as_bytes())?;
    }
    let private_key = KeyPair::from_pem(&text(&json, "private_key")?).map_err(broken)?;
    Ok(Account {
        client_email: text(&json, "client_email")?,
        private_key_id: text(&json, "private_key_id")?,
        public_key: private_key.der_bytes().to_vec(),
    })
}

/// The first certificate of a PEM file, unless it is about to expire.
fn certificate(path: &Path) -> Result<CertificateDer<'static>, StartError> {
    let der = CertificateDer::from_pem_slice(&files::read(path)?).map_err(broken)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(broken)?;
    let left = parsed.validity().not_after.timestamp() - crate::clock::unix_seconds();
    if left < SECONDS_LEFT {
        return Err(broken(format!("{} has {left} seconds left", path.display())));
    }
    Ok(der)
}

fn key(path: &Path) -> Result<KeyPair, StartError> {
    let text = String::from_utf8(files::read(path)?).map_err(broken)?;
    KeyPair::from_pem(&text).map_err(broken)
}

fn broken(problem: impl std::fmt::Display) -> StartError {
    StartError::Make(problem.to_string())
}
