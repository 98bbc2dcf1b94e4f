//! Clients for the tests: h2 over TLS for APNs, reqwest for Google and the control API.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use pushlet_simulator::{Options, Simulator};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use ring::signature::{EcdsaSigningAlgorithm, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const TOPIC: &str = "com.example.app";
pub const TOKEN: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
pub const PAYLOAD: &str = r#"{"aps":{"alert":"hi"}}"#;

/// Header names and values.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// A simulator in a directory of its own, which goes with it.
pub struct Running {
    pub simulator: Simulator,
    pub _directory: Directory,
}

impl std::ops::Deref for Running {
    type Target = Simulator;
    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

/// A new directory that is removed at the end.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(uuid::Uuid::new_v4().to_string());
        Directory(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub async fn start() -> Running {
    start_with(|_| {}).await
}

/// Starts with a copy of one set of credentials, since making RSA keys takes a while.
pub async fn start_with(change: impl FnOnce(&mut Options)) -> Running {
    static MADE: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    let directory = Directory::new();
    fs::create_dir(&directory.0).unwrap();
    let files = tokio::task::spawn_blocking(|| MADE.get_or_init(make)).await.unwrap();
    for (name, bytes) in files {
        fs::write(directory.0.join(name), bytes).unwrap();
    }
    let mut options = Options::ephemeral(&directory.0);
    change(&mut options);
    Running { simulator: Simulator::start(options).await.unwrap(), _directory: directory }
}

fn make() -> Vec<(String, Vec<u8>)> {
    let directory = Directory::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { Simulator::start(Options::ephemeral(&directory.0)).await.unwrap().stop().await });
    let entries = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    pub fn reason(&self) -> (u16, String) {
        (self.status, self.json()["reason"].as_str().unwrap().to_owned())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A certificate and key, PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    pub fn of(simulator: &Simulator) -> Identity {
        let pem = fs::read_to_string(&simulator.credentials().apns_pem).unwrap();
        Identity { certificate: pem.clone(), key: pem }
    }
}

/// An APNs connection.
pub struct Apns {
    pub h2: h2::client::SendRequest<Bytes>,
}

impl Apns {
    /// With the certificate of `apns.pem`.
    pub async fn with_certificate(simulator: &Simulator) -> Apns {
        Apns::connect(simulator, Some(Identity::of(simulator))).await.unwrap()
    }

    /// Without a certificate.
    pub async fn without(simulator: &Simulator) -> Apns {
        Apns::connect(simulator, None).await.unwrap()
    }

    /// To the development environment.
    pub async fn connect(simulator: &Simulator, identity: Option<Identity>) -> Result<Apns, String> {
        Apns::over(tls(simulator, identity, &["h2"]).await).await
    }

    pub async fn in_production(simulator: &Simulator, identity: Option<Identity>) -> Result<Apns, String> {
        Apns::over(tls_to(&simulator.apns_production_url(), simulator, identity, &["h2"]).await).await
    }

    async fn over(tls: std::io::Result<TlsStream<TcpStream>>) -> Result<Apns, String> {
        let tls = tls.map_err(|error| error.to_string())?;
        let (h2, connection) = h2::client::handshake(tls).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        // With TLS 1.3 a refusal of the certificate comes after the client's handshake is done.
        let mut h2 = match h2.ready().await {
            Ok(h2) => h2,
            Err(error) => return Err(error.to_string()),
        };
        let probe = Request::get("https://localhost/probe").body(()).unwrap();
        let (response, _) = h2.send_request(probe, true).map_err(|error| error.to_string())?;
        if let Err(error) = response.await {
            return Err(format!("{error} {:?}", driver.await));
        }
        Ok(Apns { h2 })
    }

    pub async fn push(&self, token: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.request("POST", &format!("/3/device/{token}"), headers, body).await
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.into();
        let mut h2 = self.h2.clone().ready().await.unwrap();
        let (response, mut stream) = h2.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(body, true).unwrap();
        }
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(bytes).unwrap(),
        }
    }
}

/// A TLS connection to the APNs listener.
pub async fn tls(
    simulator: &Simulator,
    identity: Option<Identity>,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_to(&simulator.apns_url(), simulator, identity, protocols).await
}

async fn tls_to(
    url: &str,
    simulator: &Simulator,
    identity: Option<Identity>,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = trusting(simulator);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(url.replace("https://", "")).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await
}

/// A provider token's parts, to be changed by tests.
pub struct TokenSpec {
    pub header: Value,
    pub claims: Value,
    pub p8: String,
    pub der: bool,
}

impl TokenSpec {
    pub fn of(simulator: &Simulator) -> TokenSpec {
        let files = simulator.credentials();
        TokenSpec {
            header: json!({"alg": "ES256", "kid": files.apns_key_id}),
            claims: json!({"iss": files.apns_team_id, "iat": now()}),
            p8: fs::read_to_string(&files.apns_p8).unwrap(),
            der: false,
        }
    }

    pub fn issued(mut self, seconds_ago: i64) -> TokenSpec {
        self.claims["iat"] = json!(now() - seconds_ago);
        self
    }

    pub fn bearer(&self) -> String {
        format!("bearer {}", self.sign())
    }

    pub fn sign(&self) -> String {
        let algorithm: &EcdsaSigningAlgorithm =
            if self.der { &ECDSA_P256_SHA256_ASN1_SIGNING } else { &ECDSA_P256_SHA256_FIXED_SIGNING };
        let random = SystemRandom::new();
        let der = PrivateKeyDer::from_pem_slice(self.p8.as_bytes()).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_der(), &random).unwrap();
        let signed = unsigned(&self.header, &self.claims);
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An RS256 assertion of the service account with these claims.
pub fn assertion(simulator: &Simulator, header: &Value, claims: &Value) -> String {
    let account = service_account(simulator);
    let der = PrivateKeyDer::from_pem_slice(account["private_key"].as_str().unwrap().as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(der.secret_der()).unwrap();
    let signed = unsigned(header, claims);
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn service_account(simulator: &Simulator) -> Value {
    serde_json::from_slice(&fs::read(&simulator.credentials().fcm_service_account).unwrap()).unwrap()
}

/// Claims that the token endpoint accepts.
pub fn claims(simulator: &Simulator) -> Value {
    let account = service_account(simulator);
    json!({
        "iss": account["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": account["token_uri"],
        "iat": now(),
        "exp": now() + 3600
    })
}

/// A client that trusts the simulator.
pub fn web(simulator: &Simulator) -> reqwest::Client {
    let mut tls = trusting(simulator).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

/// The same, of HTTP/1.1 only.
pub fn old_web(simulator: &Simulator) -> reqwest::Client {
    let tls = trusting(simulator).with_no_client_auth();
    reqwest::Client::builder().no_proxy().http1_only().tls_backend_preconfigured(tls).build().unwrap()
}

fn trusting(simulator: &Simulator) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&simulator.credentials().ca_pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots)
}

/// Sends a request of reqwest and reads the answer.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.text().await.unwrap() }
}

/// `POST /token` with an assertion.
pub async fn exchange(simulator: &Simulator, assertion: &str) -> Answer {
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
    post_form(simulator, &format!("grant_type={grant}&assertion={assertion}")).await
}

pub async fn post_form(simulator: &Simulator, body: &str) -> Answer {
    let request = web(simulator)
        .post(format!("{}/token", simulator.google_url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.to_owned());
    send(request).await
}

/// An access token, got as a client gets it.
pub async fn access_token(simulator: &Simulator) -> String {
    let kid = service_account(simulator)["private_key_id"].clone();
    let assertion =
        assertion(simulator, &json!({"alg": "RS256", "typ": "JWT", "kid": kid}), &claims(simulator));
    let answer = exchange(simulator, &assertion).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}
