//! A registry on 127.0.0.1 that can be made to lie. Written from the OCI distribution specification 1.1: one request a
//! connection, over plain HTTP.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Name and password of the only user, where one is asked for.
pub const LOGIN: (&str, &str) = ("robot", "hush-hush");
const TOKEN: &str = "a.token";
/// An answer without end ends here, so that a client that reads on is seen to.
const ENDLESS: usize = 256 << 20;

pub struct FakeRegistry {
    pub address: SocketAddr,
    stored: Arc<Mutex<Stored>>,
    serving: JoinHandle<()>,
}

/// What it has, what it was asked, and how it misbehaves.
#[derive(Default)]
pub struct Stored {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, Vec<u8>>,
    pub requests: Vec<Request>,
    /// It wants a token, for which one logs in.
    pub is_private: bool,
    /// Where tokens are, in place of this registry.
    pub realm: Option<String>,
    /// Where blobs are, in place of this registry.
    pub elsewhere: Option<SocketAddr>,
    /// Paths that contain this are answered without end.
    pub endless: Option<&'static str>,
    /// Bytes that were written of answers without end.
    pub endless_bytes: usize,
}

#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub authorization: String,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl FakeRegistry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stored = Arc::<Mutex<Stored>>::default();
        let shared = Arc::clone(&stored);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let stored = Arc::clone(&shared);
                tokio::spawn(async move { serve(socket, address, &stored).await });
            }
        });
        Self { address, stored, serving }
    }

    pub fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }

    /// `oci://` and the repository, without tag and digest.
    pub fn repository(&self) -> String {
        format!("oci://{}/team/acme", self.address)
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub fn digest_of(bytes: &[u8]) -> String {
    let digits: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

async fn serve(mut socket: TcpStream, address: SocketAddr, stored: &Mutex<Stored>) -> io::Result<()> {
    let request = read(&mut socket).await?;
    let endless = {
        let mut stored = stored.lock().unwrap();
        stored.requests.push(request.clone());
        stored.endless.is_some_and(|part| request.path.contains(part))
    };
    if endless {
        socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
        while stored.lock().unwrap().endless_bytes < ENDLESS {
            socket.write_all(&[b' '; 64 << 10]).await?;
            stored.lock().unwrap().endless_bytes += 64 << 10;
        }
        return Ok(());
    }
    let answer = answer(&request, address, &mut stored.lock().unwrap());
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", answer.body.len());
    socket.write_all(head.as_bytes()).await?;
    if request.method != "HEAD" {
        socket.write_all(&answer.body).await?;
    }
    socket.shutdown().await
}

async fn read(socket: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match socket.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let header = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while body.len() < length {
        match socket.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => body.extend_from_slice(&piece[..read]),
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let authorization = header("authorization").unwrap_or_default();
    Ok(Request { method: method.to_owned(), path: path.to_owned(), authorization, body })
}

fn answer(request: &Request, address: SocketAddr, stored: &mut Stored) -> Answer {
    let plain = |status| Answer { status, headers: Vec::new(), body: Vec::new() };
    if request.path.starts_with("/token?") {
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", LOGIN.0, LOGIN.1)));
        let known = request.authorization == basic;
        let body = if known { format!("{{\"token\":\"{TOKEN}\"}}") } else { String::new() };
        return Answer { body: body.into(), ..plain(if known { 200 } else { 401 }) };
    }
    if stored.is_private && request.authorization != format!("Bearer {TOKEN}") {
        let realm = stored.realm.clone().unwrap_or_else(|| format!("http://{address}/token"));
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:team/acme:pull\"");
        return Answer { headers: vec![("www-authenticate", challenge)], ..plain(401) };
    }
    let path = request.path.strip_prefix("/v2/team/acme/").unwrap_or_default();
    let (kind, name) = path.split_once('/').unwrap_or_default();
    match (request.method.as_str(), kind) {
        ("POST", "blobs") => Answer {
            headers: vec![("location", "/v2/team/acme/blobs/uploads/1?state=x".into())],
            ..plain(202)
        },
        ("PUT", "blobs") => {
            let asked = name.split_once("digest=").map_or("", |(_, digest)| digest).replace("%3A", ":");
            let found = digest_of(&request.body);
            stored.blobs.insert(found.clone(), request.body.clone());
            plain(if found == asked { 201 } else { 400 })
        }
        ("PUT", "manifests") => {
            stored.manifests.insert(name.to_owned(), request.body.clone());
            plain(201)
        }
        (_, "blobs") => match (stored.elsewhere, stored.blobs.get(name)) {
            (Some(elsewhere), _) => {
                let place = format!("http://{elsewhere}{}", request.path);
                Answer { headers: vec![("location", place)], ..plain(307) }
            }
            (None, Some(blob)) => Answer { body: blob.clone(), ..plain(200) },
            (None, None) => plain(404),
        },
        (_, "manifests") => match stored.manifests.get(name) {
            Some(manifest) => Answer { body: manifest.clone(), ..plain(200) },
            None => plain(404),
        },
        _ => plain(404),
    }
}
