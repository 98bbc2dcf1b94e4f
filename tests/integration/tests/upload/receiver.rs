//! A web service that takes what the webhook provider posts: HTTPS under an authority of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use pushlet_test_support::https::{self, Connection};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::{Directory, wait_until};

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
        let acceptor = https::acceptor(&directory);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posts = Arc::<Mutex<Vec<Post>>>::default();
        let holds = Arc::new(watch::Sender::new(false));
        let (to, held) = (posts.clone(), holds.clone());
        let serve = move |connection| serve(connection, to.clone(), held.clone());
        let task = tokio::spawn(https::listen(listener, acceptor, serve));
        Self { address, posts, holds, directory, task }
    }

    /// The file of its authority.
    pub fn ca(&self) -> std::path::PathBuf {
        https::authority(&self.directory)
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
        wait_until("the posts arrive", async || self.posts.lock().unwrap().len() >= count).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Records each post, and answers it once nothing holds it.
async fn serve(
    mut connection: Connection,
    posts: Arc<Mutex<Vec<Post>>>,
    holds: Arc<watch::Sender<bool>>,
) -> std::io::Result<()> {
    while let Some(request) = https::read_request(&mut connection).await? {
        let authorization = request.header("authorization").to_owned();
        let text = || Value::String(String::from_utf8_lossy(&request.body).into_owned());
        let body = serde_json::from_slice(&request.body).unwrap_or_else(|_| text());
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        let status = if path.ends_with("/gone") { 410 } else { 200 };
        posts.lock().unwrap().push(Post { path, authorization, body });
        holds.subscribe().wait_for(|holds| !holds).await.unwrap();
        https::respond(&mut connection, status).await?;
    }
    Ok(())
}
