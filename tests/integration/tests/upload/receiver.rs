//! A web service that takes what the webhook provider posts: HTTPS under an authority of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::harness::Directory;

/// One post.
#[derive(Debug, Clone)]
pub struct Post {
    pub path: String,
    pub authorization: String,
    pub body: Value,
}

pub struct Receiver {
    pub address: SocketAddr,
    pub posts: Arc<Mutex<Vec<Post>>>,
    /// While it is true no post is answered.
    pub holds: Arc<watch::Sender<bool>>,
    directory: Directory,
    task: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let directory = Directory::new();
        let acceptor = TlsAcceptor::from(Arc::new(tls(&directory)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posts = Arc::<Mutex<Vec<Post>>>::default();
        let holds = Arc::new(watch::Sender::new(false));
        let task = tokio::spawn(accept(listener, acceptor, posts.clone(), holds.clone()));
        Self { address, posts, holds, directory, task }
    }

    /// The file of its authority.
    pub fn ca(&self) -> std::path::PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Configuration that sends the requests of a tenant's provider here.
    pub fn settings(&self, tenant: &str, provider: &str) -> String {
        let (address, ca) = (self.address, self.ca().display().to_string());
        format!(
            "endpoints.\"{tenant}/{provider}\" = {{ production = \"https://{address}\", development = \"https://{address}\" }}\ntls.extra_roots = [{ca:?}]\n"
        )
    }

    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// The versions that the posts came from, in order.
    pub fn versions(&self) -> Vec<String> {
        self.posts().iter().map(|post| post.body["version"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for this many posts.
    pub async fn has(&self, count: usize) {
        while self.posts.lock().unwrap().len() < count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tls(directory: &Directory) -> ServerConfig {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    posts: Arc<Mutex<Vec<Post>>>,
    holds: Arc<watch::Sender<bool>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, posts, holds) = (acceptor.clone(), posts.clone(), holds.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| answer(request, posts.clone(), holds.clone()));
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    posts: Arc<Mutex<Vec<Post>>>,
    holds: Arc<watch::Sender<bool>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get("authorization");
    let authorization = authorization.map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    let status = if path.ends_with("/gone") { 410 } else { 200 };
    posts.lock().unwrap().push(Post { path, authorization, body });
    holds.subscribe().wait_for(|holds| !holds).await.unwrap();
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}
