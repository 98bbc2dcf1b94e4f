//! Tests of the whole module, with keys and files made by the `openssl` command.

mod access_tokens;
mod certificate_choice;
mod compositions;
mod hostile_files;
mod identities;
mod keys;
mod manifests;
mod provider_tokens;
mod secrecy;
mod signed_tokens;
mod signing;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::files::identity::CertificateIdentity;
use super::files::keys::TokenKey;
use super::files::pem::ServiceAccount;
use super::*;
use pushlet_model::contract::Environment;
use pushlet_model::contract::manifest::{
    Authentication, Credential as CredentialKind, Derivation, Grant, Place, Placement, Property,
    Secret as SecretField, SecretFormat, SignedToken, SigningAlgorithm, Source, TokenExchange,
};
use pushlet_model::tenant::TenantId;
use pushlet_quota::account::{AccountSettings, Accounts, WorkLimits};

/// A directory in which `openssl` works, removed afterwards.
struct Workshop(PathBuf);

impl Workshop {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("pushlet-credential-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    /// Runs `openssl` with arguments separated by spaces; `''` is an empty argument.
    fn openssl(&self, arguments: &str) -> Vec<u8> {
        let arguments = arguments.split_whitespace().map(|argument| argument.replace("''", ""));
        let output = Command::new("openssl").args(arguments.clone()).current_dir(&self.0).output().unwrap();
        let trouble = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {}: {trouble}", arguments.collect::<Vec<_>>().join(" "));
        output.stdout
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), content).unwrap();
    }

    /// `ca.pem` and a certificate of it, `cert.pem`, for the new key `key.pem`.
    fn identity(&self, key: &str) {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=Authority -days 3650");
        self.openssl(&format!("genpkey {key} -out key.pem"));
        self.openssl("req -new -key key.pem -out cert.csr -subj /CN=Push/UID=com.example.app");
        self.openssl("x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -out cert.pem -days 365");
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

fn uploads(fields: &[(&str, &[u8])]) -> UploadedSecrets {
    let mut uploads = UploadedSecrets::default();
    for (field, value) in fields {
        uploads.insert(field, Secret::new(value.to_vec()));
    }
    uploads
}

fn parse(kinds: &[CredentialKind], fields: &[(&str, &[u8])]) -> Result<Option<Credential>, CredentialError> {
    Credential::parse(kinds, &uploads(fields), &production(SystemTime::now()))
}

fn accept(kinds: &[CredentialKind], fields: &[(&str, &[u8])]) -> Credential {
    match parse(kinds, fields) {
        Ok(credential) => credential.expect("no secret was uploaded"),
        Err(error) => panic!("{error}"),
    }
}

fn refuse(kinds: &[CredentialKind], fields: &[(&str, &[u8])]) -> CredentialError {
    parse(kinds, fields).err().expect("it was accepted")
}

fn secret(name: &str, format: SecretFormat, password: Option<&str>) -> SecretField {
    SecretField {
        name: name.to_owned(),
        format,
        password: password.map(str::to_owned),
        description: String::new(),
    }
}

fn kind(name: &str, secrets: Vec<SecretField>, authentication: Authentication) -> CredentialKind {
    CredentialKind {
        name: name.to_owned(),
        secrets,
        authentication,
        required_settings: Vec::new(),
        derivations: Vec::new(),
        inline: false,
        companions: Vec::new(),
        connection_settings: Vec::new(),
    }
}

fn certificate_kind() -> CredentialKind {
    let secrets = vec![
        secret("apns_p12", SecretFormat::Pkcs12Identity, Some("apns_p12_pass")),
        secret("apns_pem", SecretFormat::PemIdentity, Some("apns_p12_pass")),
    ];
    kind("certificate", secrets, Authentication::ClientCertificate)
}

fn place(prefix: &str) -> Placement {
    Placement { place: Place::Header("authorization".to_owned()), prefix: prefix.to_owned() }
}

fn named(pairs: &[(&str, Source)]) -> Vec<(String, Source)> {
    pairs.iter().map(|(name, source)| ((*name).to_owned(), source.clone())).collect()
}

fn minutes(count: u64) -> u64 {
    count * 60_000
}

/// Apple's provider token.
fn token_kind() -> CredentialKind {
    let token = SignedToken {
        key: "apns_p8".to_owned(),
        algorithm: SigningAlgorithm::Es256,
        header: named(&[("kid", Source::Setting("apns_key_id".to_owned()))]),
        claims: named(&[("iss", Source::Setting("apns_team_id".to_owned())), ("iat", Source::IssuedAt)]),
        lifetime: minutes(50),
        minimum_age: minutes(20),
    };
    let secrets = vec![secret("apns_p8", SecretFormat::Pkcs8Key, None)];
    kind("token", secrets, Authentication::SignedToken((token, place("bearer "))))
}

/// Google's service account.
fn account_kind() -> CredentialKind {
    let property = |name: &str| Source::SecretProperty(("fcm_service_account".to_owned(), name.to_owned()));
    let token = SignedToken {
        key: "fcm_service_account".to_owned(),
        algorithm: SigningAlgorithm::Rs256,
        header: named(&[("kid", property("private_key_id")), ("typ", Source::Literal("\"JWT\"".to_owned()))]),
        claims: named(&[
            ("iss", property("client_email")),
            ("aud", property("token_uri")),
            ("iat", Source::IssuedAt),
            ("exp", Source::ExpiresAt),
        ]),
        lifetime: minutes(60),
        minimum_age: 0,
    };
    let exchange = TokenExchange {
        token_url: vec![property("token_uri")],
        scope: None,
        grant: Grant::JwtBearer(token),
        refresh_before: minutes(5),
        minimum_age: 0,
    };
    let secrets = vec![secret("fcm_service_account", SecretFormat::ServiceAccount, None)];
    let mut kind =
        kind("service-account", secrets, Authentication::ExchangedToken((exchange, place("Bearer "))));
    kind.derivations.push(Derivation {
        setting: "project_id".to_owned(),
        property: Property::ServiceAccountProperty("project_id".to_owned()),
    });
    kind
}

fn key_kind() -> CredentialKind {
    let secrets = vec![secret("gcm_api_key", SecretFormat::Text, None)];
    kind("api-key", secrets, Authentication::Secret(("gcm_api_key".to_owned(), place("key="))))
}

/// A service account file around a private key in PEM.
fn service_account(private_key: &[u8]) -> serde_json::Value {
    serde_json::json!({
        "type": "service_account",
        "project_id": "example-project",
        "private_key_id": "0123456789abcdef",
        "private_key": String::from_utf8(private_key.to_vec()).unwrap(),
        "client_email": "push@example-project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    })
}

/// For production at a time, with no settings.
fn production(now: SystemTime) -> CredentialPurpose {
    CredentialPurpose { environment: Environment::Production, now, settings: Vec::new() }
}

fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A moment `seconds` after `start`, on both clocks.
fn later(start: &ClockReading, seconds: u64) -> ClockReading {
    let step = Duration::from_secs(seconds);
    ClockReading { wall: start.wall + step, steady: start.steady + step }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// One with enough processor time for everything.
fn authorizer(endpoint: Arc<access_tokens::Endpoint>) -> Authorizer {
    let work = WorkLimits { cpu_burst: Duration::from_secs(100_000), ..WorkLimits::default() };
    let accounts = Accounts::new(AccountSettings { work, ..AccountSettings::default() }).unwrap();
    Authorizer::new(Arc::new(access_tokens::Client(endpoint)), accounts)
}

fn tenant() -> &'static TenantId {
    static TENANT: OnceLock<TenantId> = OnceLock::new();
    TENANT.get_or_init(TenantId::default_tenant)
}

/// Every token endpoint is one of a stranger's.
struct Untrusted;

impl TokenTrust for Untrusted {
    fn trusts(&self, _: &url::Url) -> bool {
        false
    }
}
