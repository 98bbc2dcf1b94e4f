//! Stand-ins for push services, written from the vendors' documents.
//!
//! One [`Simulator`] serves, on loopback and over TLS:
//! - APNs (HTTP/2): device pushes, broadcast and channel management, see [`apns`];
//! - FCM HTTP v1, Google's OAuth token endpoint and the legacy GCM endpoint, see [`google`];
//! - on the same listener Huawei Push Kit, see [`hms`], and a Web Push service, see [`webpush`];
//! - if a test asks for them, the binary APNs protocol with its feedback service, and an SMPP message centre;
//! - a plain HTTP control API that lists what arrived and scripts answers, see [`control`].
//!
//! A [`recorder`] stands in for any other service.
//!
//! Every request is checked as the vendor documents it and refused with the documented status and
//! reason. A request that passes every check is answered by the first of: a [`Script`], a magic
//! token (each module lists its own), success.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod answer;
pub mod apns;
mod apns_binary;
mod clock;
mod connections;
pub mod control;
mod credentials;
mod error;
pub mod google;
pub mod hms;
mod listen;
mod record;
pub mod recorder;
mod script;
mod smpp;
mod state;
mod tls;
pub mod webpush;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use apns_binary::{ApnsBinary, BinaryNotification, BinaryTraffic};
pub use connections::{ClientCertificate, ConnectionCounts, ConnectionInfo, Connections, Listener};
pub use credentials::{
    CertificateKind, CertificateSpec, CredentialFiles, IssuedCertificate, make_credentials,
};
pub use error::StartError;
pub use record::{Counts, Received, Service, ServiceCounts};
pub use script::{RetryAfter, Script, ScriptError};
pub use smpp::{ShortMessage, Smpp, SmppTraffic};
pub use webpush::{Subscription, SubscriptionKeys};

use state::Shared;

/// Apple's two environments; each has a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Answers carry `apns-unique-id`; certificates need Apple's development extension.
    Development,
    /// No `apns-unique-id`; certificates need Apple's production extension.
    Production,
}

/// Where the simulator listens and what it keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the throw-away credentials are written; made if it is missing.
    pub directory: PathBuf,
    /// Address of the listener that plays APNs' development environment (its sandbox); port 0 takes a free one.
    pub apns: SocketAddr,
    /// Address of the listener that plays APNs' production environment; port 0 takes a free one.
    pub apns_production: SocketAddr,
    /// Address of the listener for all services but APNs; port 0 takes a free one.
    pub google: SocketAddr,
    /// Address of the plain HTTP control API; port 0 takes a free one. It has no authentication:
    /// keep it on loopback.
    pub control: SocketAddr,
    /// How many received requests are kept, newest first to stay; 0 keeps counts only.
    pub keep: usize,
    /// How long an access token of the OAuth endpoint is valid.
    pub access_token_lifetime: Duration,
}

impl Default for Options {
    /// `./simulator`, loopback ports 9443 to 9446, 10,000 requests, an hour less a second.
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Options {
            directory: PathBuf::from("simulator"),
            apns: loopback(9443),
            google: loopback(9444),
            control: loopback(9445),
            apns_production: loopback(9446),
            keep: 10_000,
            access_token_lifetime: Duration::from_secs(3599),
        }
    }
}

impl Options {
    /// Free loopback ports and `directory`: what a test wants.
    pub fn ephemeral(directory: impl Into<PathBuf>) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Options {
            directory: directory.into(),
            apns: free,
            apns_production: free,
            google: free,
            control: free,
            ..Options::default()
        }
    }
}

/// A running simulator. It ends when it is dropped, or by [`Simulator::stop`].
pub struct Simulator {
    shared: Arc<Shared>,
    apns: SocketAddr,
    apns_production: SocketAddr,
    google: SocketAddr,
    control: SocketAddr,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Binds the four listeners, reads or makes the credentials and starts to serve.
    ///
    /// # Errors
    /// An address that cannot be bound, or a directory that cannot be written.
    pub async fn start(options: Options) -> Result<Simulator, StartError> {
        let (apns, apns_addr) = bind("apns", options.apns).await?;
        let (production, production_addr) = bind("apns-production", options.apns_production).await?;
        let (google, google_addr) = bind("google", options.google).await?;
        let (control, control_addr) = bind("control", options.control).await?;
        let token_uri = format!("https://{google_addr}/token");
        let directory = options.directory.clone();
        let material =
            tokio::task::spawn_blocking(move || credentials::load_or_create(&directory, &token_uri))
                .await
                .map_err(|_| StartError::Interrupted)??;
        let apns_tls = tls::apns_config(&material)?;
        let google_tls = tls::google_config(&material)?;
        let shared = Arc::new(Shared::new(&options, material, format!("https://{google_addr}")));
        let mut tasks = JoinSet::new();
        tasks.spawn(apns::server::serve(apns, Environment::Development, apns_tls.clone(), shared.clone()));
        tasks.spawn(apns::server::serve(production, Environment::Production, apns_tls, shared.clone()));
        tasks.spawn(google::server::serve(google, google_tls, shared.clone()));
        tasks.spawn(control::serve(control, shared.clone()));
        Ok(Simulator {
            shared,
            apns: apns_addr,
            apns_production: production_addr,
            google: google_addr,
            control: control_addr,
            tasks,
        })
    }

    /// Base URL of APNs' development environment: `https://127.0.0.1:PORT`, HTTP/2 only. Device pushes, broadcasts
    /// and channel management share it.
    pub fn apns_url(&self) -> String {
        format!("https://{}", self.apns)
    }

    /// Base URL of APNs' production environment.
    pub fn apns_production_url(&self) -> String {
        format!("https://{}", self.apns_production)
    }

    /// Base URL of FCM (`/v1/projects/{project}/messages:send`), OAuth (`/token`) and legacy GCM
    /// (`/gcm/send`, `/fcm/send`), Huawei (`/oauth2/v3/token`, `/v1/{app}/messages:send`, `/v3/…`) and Web Push
    /// (`/wpush/v2/{subscription}`), HTTP/1.1 and HTTP/2.
    pub fn google_url(&self) -> String {
        format!("https://{}", self.google)
    }

    /// Base URL of the control API: `http://127.0.0.1:PORT`.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// Where the throw-away credentials are and what belongs to them.
    pub fn credentials(&self) -> &CredentialFiles {
        &self.shared.material.files
    }

    /// The requests that are kept, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.shared.recorder.received()
    }

    /// How many requests arrived since the start or the last [`Simulator::clear`].
    pub fn counts(&self) -> Counts {
        self.shared.recorder.counts()
    }

    /// Forgets the received requests and starts counting from 0.
    pub fn clear(&self) {
        self.shared.recorder.clear();
    }

    /// Adds a script; scripts are tried in the order in which they were added.
    ///
    /// # Errors
    /// A status, header or size that HTTP does not allow, or too many scripts.
    pub fn script(&self, script: Script) -> Result<(), ScriptError> {
        self.shared.scripts.add(script)
    }

    /// Forgets all scripts.
    pub fn clear_scripts(&self) {
        self.shared.scripts.clear();
    }

    /// Connections accepted and open, and the newest of them one by one.
    pub fn connections(&self) -> Connections {
        self.shared.connections.snapshot()
    }

    /// A client certificate of the simulator's authority: another topic, another environment, expired, ….
    ///
    /// # Errors
    /// A topic that cannot stand in a certificate.
    pub fn issue_certificate(&self, spec: &CertificateSpec) -> Result<IssuedCertificate, StartError> {
        credentials::issue(&self.shared.material, spec)
    }

    /// Makes a further APNs signing key, known from now on, and returns it as the text of a `.p8` file.
    ///
    /// # Errors
    /// The random source failed.
    pub fn issue_provider_key(&self, key_id: &str, team_id: &str) -> Result<String, StartError> {
        self.shared.apns.issue_key(key_id, team_id)
    }

    /// Makes every access token given out so far invalid, as Google does when a key is deleted.
    pub fn revoke_access_tokens(&self) {
        self.shared.revoke_access_tokens();
    }

    /// Stops serving: listeners and connections are closed when this returns.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The listener, and the address that it has.
async fn bind(listener: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { listener, address, source };
    let bound = TcpListener::bind(address).await.map_err(failed)?;
    let local = bound.local_addr().unwrap_or(address);
    Ok((bound, local))
}
