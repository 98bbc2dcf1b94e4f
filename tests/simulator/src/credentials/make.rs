//! Making keys, certificates and the files that hold them.

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use serde_json::{Value, json};

use super::{CredentialFiles, HMS_PROJECT_ID, HMS_SUB_ACCOUNT, PROJECT_ID, TOPIC, broken, files, p12};
use crate::clock::unix_seconds;
use crate::error::StartError;

const DAY: i64 = 24 * 3600;
/// Where the simulator is found by its address.
const LOCAL_NAMES: &[&str] = &["localhost", "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"];
/// The services' own names, for clients that know no other and are led here by a hosts file.
pub(super) const SERVICE_NAMES: &[&str] = &[
    "api.push.apple.com",
    "api.sandbox.push.apple.com",
    "api.development.push.apple.com",
    "api-broadcast.push.apple.com",
    "api-broadcast.sandbox.push.apple.com",
    "api-manage-broadcast.push.apple.com",
    "api-manage-broadcast.sandbox.push.apple.com",
    "fcm.googleapis.com",
    "oauth2.googleapis.com",
    "www.googleapis.com",
    "accounts.google.com",
    "gcm-http.googleapis.com",
    "android.googleapis.com",
    "push-api.cloud.huawei.com",
    "oauth-login.cloud.huawei.com",
];
/// Server certificates of a longer life are refused by some clients.
const VALID_DAYS: i64 = 365;
/// userId (RFC 4519 section 2.39): Apple puts the topic there.
const USER_ID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];
/// Apple's push extensions; the last number tells development (1), production (2), VoIP (4) and the topic list (6).
const APPLE_PUSH_ARC: [u64; 7] = [1, 2, 840, 113_635, 100, 6, 3];

/// What Apple issues a push certificate for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    /// An app: alerts, background, and what its topic list names.
    App,
    /// An app's VoIP pushes.
    Voip,
    /// A device management server.
    Mdm,
    /// A website's notifications in Safari.
    Website,
    /// Wallet passes of one type.
    PassType,
}

impl CertificateKind {
    /// How the certificate's common name begins.
    fn common_name(self) -> &'static str {
        match self {
            Self::App => "Apple Push Services: ",
            Self::Voip => "VoIP Services: ",
            Self::Mdm => "APSP:",
            Self::Website => "Website Push ID: ",
            Self::PassType => "Pass Type ID: ",
        }
    }
}

/// A client certificate to issue.
#[derive(Debug, Clone)]
pub struct CertificateSpec {
    /// What it is for.
    pub kind: CertificateKind,
    /// The topic, as the subject's UID; APNs refuses a certificate without one.
    pub topic: Option<String>,
    /// Further topics, in Apple's extension 1.2.840.113635.100.6.3.6, with which `apns-topic` becomes mandatory.
    pub further_topics: Vec<String>,
    /// Whether it carries Apple's development extension.
    pub development: bool,
    /// Whether it carries Apple's production extension.
    pub production: bool,
    /// Whether its time is over.
    pub expired: bool,
}

impl CertificateSpec {
    /// A valid certificate of both environments for one topic.
    pub fn for_topic(topic: impl Into<String>) -> CertificateSpec {
        CertificateSpec {
            kind: CertificateKind::App,
            topic: Some(topic.into()),
            further_topics: Vec::new(),
            development: true,
            production: true,
            expired: false,
        }
    }

    /// A valid certificate of another kind, for the environments that Apple issues it for: VoIP for both, the others
    /// for production.
    pub fn of_kind(kind: CertificateKind, topic: impl Into<String>) -> CertificateSpec {
        let development = matches!(kind, CertificateKind::App | CertificateKind::Voip);
        CertificateSpec { kind, development, ..CertificateSpec::for_topic(topic) }
    }
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its P-256 key, PKCS#8 PEM.
    pub key_pem: String,
}

/// Makes every file; `ca.pem` goes first and comes last, so that it stands for a complete set.
pub(super) fn all(files: &CredentialFiles) -> Result<(), StartError> {
    files::remove(&files.ca_pem)?;
    // Two RSA keys are the slow part of a first start: make them side by side.
    let (apns_key, account_key) = std::thread::scope(|scope| {
        let other = scope.spawn(rsa_key);
        let first = rsa_key();
        (first, other.join().unwrap_or_else(|_| Err(broken("a key could not be made"))))
    });
    let (apns_key, account_key) = (apns_key?, account_key?);
    let ca_key = ec_key()?;
    let ca = ca_params().self_signed(&ca_key).map_err(broken)?;
    let server_key = ec_key()?;
    let server = server_certificate(&server_key, &ca_key)?;
    let apns = client_certificate(&CertificateSpec::for_topic(TOPIC), &apns_key, &ca_key)?;
    let chain = [apns.der().to_vec(), ca.der().to_vec()];

    files::write(&files.ca_key(), ca_key.serialize_pem().as_bytes())?;
    files::write(&files.server_pem(), (server.pem() + &server_key.serialize_pem()).as_bytes())?;
    files::write(&files.apns_pem, (apns.pem() + &apns_key.serialize_pem()).as_bytes())?;
    files::write(&files.apns_p12, &p12::modern(apns_key.serialized_der(), &chain)?)?;
    // Keychain leaves the issuer out unless it is selected too, and some readers bear no third bag.
    let leaf = [apns.der().to_vec()];
    files::write(&files.apns_legacy_p12, &p12::legacy(apns_key.serialized_der(), &leaf)?)?;
    for (path, kind, topic) in files.other_kinds() {
        let key = ec_key()?;
        let certificate = client_certificate(&CertificateSpec::of_kind(kind, topic), &key, &ca_key)?;
        files::write(path, (certificate.pem() + &key.serialize_pem()).as_bytes())?;
    }
    files::write(&files.apns_p8, ec_key()?.serialize_pem().as_bytes())?;
    files::write(&files.fcm_service_account, pretty(&service_account(&account_key)).as_bytes())?;
    files::write(&files.ca_pem, ca.pem().as_bytes())
}

/// A P-256 key.
pub(super) fn ec_key() -> Result<KeyPair, StartError> {
    KeyPair::generate().map_err(broken)
}

/// A client certificate as Apple issues them for push services.
pub(super) fn client_certificate(
    spec: &CertificateSpec,
    key: &impl PublicKeyData,
    ca_key: &KeyPair,
) -> Result<Certificate, StartError> {
    let mut params = leaf_params(ExtendedKeyUsagePurpose::ClientAuth);
    let name = spec.topic.as_deref().unwrap_or("nothing");
    if let Some(topic) = &spec.topic {
        params
            .distinguished_name
            .push(DnType::CustomDnType(USER_ID.to_vec()), DnValue::Utf8String(topic.clone()));
    }
    params.distinguished_name.push(DnType::CommonName, format!("{}{name}", spec.kind.common_name()));
    params.distinguished_name.push(DnType::OrganizationalUnitName, super::TEAM_ID);
    params.distinguished_name.push(DnType::OrganizationName, "Pushlet Simulator");
    if spec.expired {
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(-2);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(-1);
    }
    params.custom_extensions = apple_extensions(spec);
    params.signed_by(key, &Issuer::new(ca_params(), ca_key)).map_err(broken)
}

/// JSON as people read it.
pub(super) fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

fn apple_extensions(spec: &CertificateSpec) -> Vec<CustomExtension> {
    let extension = |last: u64, content: Vec<u8>| {
        let oid: Vec<u64> = APPLE_PUSH_ARC.iter().copied().chain([last]).collect();
        CustomExtension::from_oid_content(&oid, content)
    };
    let null = || yasna::construct_der(|writer| writer.write_null());
    let mut extensions = Vec::new();
    if spec.development {
        extensions.push(extension(1, null()));
    }
    if spec.production {
        extensions.push(extension(2, null()));
    }
    if let (CertificateKind::Voip, Some(topic)) = (spec.kind, &spec.topic) {
        extensions.push(extension(4, yasna::construct_der(|writer| writer.write_utf8_string(topic))));
    }
    if !spec.further_topics.is_empty() {
        let topics: Vec<&String> = spec.topic.iter().chain(&spec.further_topics).collect();
        extensions.push(extension(6, topic_list(&topics)));
    }
    extensions
}

/// SEQUENCE of pairs: the topic, and a SEQUENCE of tags that say what kind of topic it is.
fn topic_list(topics: &[&String]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|list| {
            for topic in topics {
                list.next().write_utf8_string(topic);
                let tag =
                    ["voip", "complication"].into_iter().find(|tag| topic.ends_with(tag)).unwrap_or("app");
                list.next().write_sequence(|tags| tags.next().write_utf8_string(tag));
            }
        });
    })
}

fn server_certificate(key: &KeyPair, ca_key: &KeyPair) -> Result<Certificate, StartError> {
    let names: Vec<String> = LOCAL_NAMES.iter().chain(SERVICE_NAMES).map(|name| (*name).to_owned()).collect();
    server_params(names)?.signed_by(key, &Issuer::new(ca_params(), ca_key)).map_err(broken)
}

/// What a server's certificate with these names says.
pub(super) fn server_params(names: Vec<String>) -> Result<CertificateParams, StartError> {
    let mut params = leaf_params(ExtendedKeyUsagePurpose::ServerAuth);
    params.subject_alt_names = CertificateParams::new(names).map_err(broken)?.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, "Pushlet Simulator");
    Ok(params)
}

fn leaf_params(usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(-1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(VALID_DAYS);
    params
}

pub(super) fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Pushlet Simulator CA (worth nothing)");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(-1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(VALID_DAYS);
    params
}

/// The time that is `days` from now.
fn since_1970(days: i64) -> Duration {
    Duration::from_secs(unix_seconds().saturating_add(days * DAY).max(0).cast_unsigned())
}

fn rsa_key() -> Result<KeyPair, StartError> {
    let key = rsa::PrivateKey::new(&mut getrandom::SysRng, 2048).map_err(broken)?;
    KeyPair::from_pem(&key.to_pkcs8_pem(LineEnding::LF).map_err(broken)?).map_err(broken)
}

/// Huawei's names for what a service account holds.
pub(super) fn hms_service_account(google: &Value) -> Value {
    json!({
        "project_id": HMS_PROJECT_ID,
        "key_id": google["private_key_id"],
        "private_key": google["private_key"],
        "sub_account": HMS_SUB_ACCOUNT,
        "auth_uri": "https://oauth-login.cloud.huawei.com/oauth2/v3/authorize",
        "token_uri": "https://oauth-login.cloud.huawei.com/oauth2/v3/token",
    })
}

fn service_account(key: &KeyPair) -> Value {
    let fingerprint = hex::encode(ring::digest::digest(&ring::digest::SHA256, key.der_bytes()));
    let client_email = format!("pushlet@{PROJECT_ID}.iam.gserviceaccount.com");
    json!({
        "type": "service_account",
        "project_id": PROJECT_ID,
        "private_key_id": fingerprint.get(..40),
        "private_key": key.serialize_pem(),
        "client_email": client_email,
        "client_id": "100000000000000000001",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": format!("https://www.googleapis.com/robot/v1/metadata/x509/{client_email}"),
        "universe_domain": "googleapis.com"
    })
}
