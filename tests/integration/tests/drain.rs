//! A server that ends while callers go on: not one of their requests is lost.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use pushlet_simulator::{Options, Simulator};
use reqwest::Client;
use serde_json::Value;

use crate::callers::Callers;
use crate::harness::{Directory, http_client, pointing_at, wait_for, wait_until};
use crate::program::Program;
use crate::upload::PROGRAM;

async fn simulator(directory: &Directory) -> Simulator {
    Simulator::start(Options::ephemeral(directory.path())).await.unwrap()
}

fn configuration(simulator: &Simulator, settings: &str) -> String {
    pointing_at(simulator, settings).replacen("listen = \"127.0.0.1:0\"\n", "", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_server_beside_the_old_one_takes_over_without_a_loss() {
    let directory = Directory::new();
    let simulator = simulator(&directory).await;
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let settings = "reuse_port = true\ndelivery.lame_duck = \"1s\"\n";
    let toml = format!("listen = \"{address}\"\n{}", configuration(&simulator, settings));
    let mut old = Program::serve_exactly(&toml).await;
    let callers = Callers::start(&old.base);
    callers.deliver(50).await;
    let new = Program::serve_exactly(&toml).await;
    old.signal("TERM");
    wait_until("the old server ends", async || old.has_ended()).await;
    callers.deliver(50).await;
    assert_eq!(callers.end().await, simulator.counts().gcm.delivered, "{}", new.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_the_service_manager_outlives_the_server_and_no_request_is_lost() {
    let directory = Directory::new();
    let simulator = simulator(&directory).await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let file = directory.path().join("pushlet.toml");
    std::fs::write(&file, configuration(&simulator, "delivery.lame_duck = \"1s\"\n")).unwrap();
    let mut old = activated(&socket, &file).await;
    assert_eq!(old.base, url);
    let callers = Callers::start(&url);
    callers.deliver(50).await;
    old.signal("TERM");
    wait_until("the old server ends", async || old.has_ended()).await;
    let _new = activated(&socket, &file).await;
    callers.deliver(50).await;
    assert_eq!(callers.end().await, simulator.counts().gcm.delivered);
}

/// Starts the program with a socket, as systemd does.
async fn activated(socket: &TcpListener, config: &Path) -> Program {
    let mut command = std::process::Command::new("sh");
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" serve --config \"$1\"";
    command.arg("-c").arg(script).arg(PROGRAM).arg(config);
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    Program::run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_leaves_says_so_and_goes_on() {
    let directory = Directory::new();
    let settings = "metrics.listen = \"127.0.0.1:0\"\ndelivery.lame_duck = \"2s\"\n";
    let toml = configuration(&simulator(&directory).await, settings);
    let mut program = Program::serve(&toml).await;
    let client = http_client();
    let find = || {
        let log = program.log();
        let addresses = log.lines().filter_map(|line| line.split_once("is listening on "));
        let addresses: Vec<_> = addresses.map(|(_, address)| address.to_owned()).collect();
        (addresses.len() == 2).then_some(addresses)
    };
    let addresses = wait_for("both listen", async || find()).await;
    for base in &addresses {
        assert_eq!(client.get(format!("{base}/readyz")).send().await.unwrap().status(), 200);
    }
    program.signal("TERM");
    wait_until("it leaves", async || program.log().contains("leaving")).await;
    for base in &addresses {
        let response = client.get(format!("{base}/readyz")).send().await.unwrap();
        assert_eq!(response.status(), 503);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body["error"], "stopping");
    }
    let response = client.get(program.url("/v1/applications")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["connection"].to_str().unwrap()),
        (200, "close")
    );
    wait_until("it ends", async || program.has_ended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_and_a_name_are_listened_on() {
    let directory = Directory::new();
    let path = directory.path().join("pushlet.sock");
    let file = directory.path().join("pushlet.toml");
    std::fs::write(&file, format!("listen = \"unix:{}\"\n", path.display())).unwrap();
    let mut command = std::process::Command::new(PROGRAM);
    command.arg("serve").arg("--config").arg(&file);
    let program = Program::run(command).await;
    let client = Client::builder().unix_socket(path.clone()).build().unwrap();
    assert_eq!(client.get("http://localhost/healthz").send().await.unwrap().status(), 200);
    drop(program);
    let program = Program::serve_exactly("listen = \"localhost:0\"\n").await;
    assert_eq!(http_client().get(program.url("/healthz")).send().await.unwrap().status(), 200);
}
