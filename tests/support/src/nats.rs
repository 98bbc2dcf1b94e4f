//! Real NATS servers: one, or a cluster of three.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::{Directory, LONGEST_WAIT};

/// NATS servers with JetStream. They end, and their data goes, when this is dropped.
pub struct Nats {
    nodes: Vec<Node>,
    _directory: Directory,
}

struct Node {
    port: u16,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Nats {
    /// Starts one server. `more`: lines of its configuration.
    pub fn single(more: &str) -> Self {
        Self::start(1, more)
    }

    /// Starts a cluster of three servers.
    pub fn cluster() -> Self {
        Self::start(3, "")
    }

    fn start(count: usize, more: &str) -> Self {
        let directory = Directory::new();
        let ports = free_ports(2 * count);
        let (clients, routes) = ports.split_at(count);
        let mut nodes = Vec::new();
        for (number, port) in clients.iter().enumerate() {
            let folder = directory.path().join(format!("n{number}"));
            std::fs::create_dir(&folder).unwrap();
            let mut config = format!(
                "server_name: n{number}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n{more}\n",
                folder.display()
            );
            if count > 1 {
                let others = routes.iter().map(|route| format!("\"nats://127.0.0.1:{route}\""));
                let others: Vec<_> = others.collect();
                writeln!(
                    config,
                    "cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}",
                    routes[number],
                    others.join(", ")
                )
                .unwrap();
            }
            let path = folder.join("nats.conf");
            std::fs::write(&path, config).unwrap();
            nodes.push(Node { port: *port, config: path, log: folder.join("log"), child: None });
        }
        let mut nats = Self { nodes, _directory: directory };
        (0..count).for_each(|number| nats.start_node(number));
        nats
    }

    /// Returns the URLs of all servers, with commas.
    pub fn url(&self) -> String {
        let urls = self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Kills a server as `kill -9` does; its data stays.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].end();
    }

    pub fn kill_all(&mut self) {
        self.nodes.iter_mut().for_each(Node::end);
    }

    /// Starts a server that was killed, and waits until it listens.
    pub fn start_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.child = Some(
            Command::new(program())
                .arg("-c")
                .arg(&node.config)
                .arg("-l")
                .arg(&node.log)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let (start, address) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, node.port)));
        while TcpStream::connect(address).is_err() {
            let ended = node.child.as_mut().and_then(|child| child.try_wait().unwrap());
            let log = || std::fs::read_to_string(&node.log).unwrap_or_default();
            assert!(
                ended.is_none() && start.elapsed() < LONGEST_WAIT,
                "nats-server does not listen: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the process of a server, for signals.
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.nodes[number].child.as_ref().map(Child::id)
    }
}

impl Node {
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns ports that nobody listens on now.
fn free_ports(count: usize) -> Vec<u16> {
    let all: Vec<_> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    all.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Returns the program: `NATS_SERVER`, the installed one, or the one in the PATH. Installs it if there is none.
fn program() -> PathBuf {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(program) = std::env::var_os("NATS_SERVER") {
            return program.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let installed = root.join("target/nats/bin/nats-server");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
        let found = std::iter::once(installed.clone()).chain(found).find(|program| program.is_file());
        found.unwrap_or_else(|| {
            install(&root);
            installed
        })
    });
    PROGRAM.clone()
}

/// Runs the script that installs the program below `target`.
fn install(root: &Path) {
    let script = root.join("tests/nats/install.sh");
    let output =
        Command::new(&script).output().unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(
        output.status.success(),
        "nats-server is missing, which the tests of a fleet need, and tests/nats/install.sh failed (python3 with \
         venv and pip installs it; or set NATS_SERVER):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
