//! A running server that reads its configuration again: nothing is lost, and it says what has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pushlet_simulator::{Options, Simulator};
use reqwest::{Client, Method};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::callers::Callers;
use crate::guests::fixture::component;
use crate::harness::{Directory, expect, expect_error, http_client, pointing_at, wait_until};
use crate::program::Program;

const OPERATOR: &str = "the operator's key";

/// A certificate for `localhost` in the files of the configuration. `year`: at whose begin it ends.
fn write_certificate(directory: &Path, year: i32) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let made = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(directory.join("cert.pem"), made.pem()).unwrap();
    made.der().clone()
}

fn client_config(trusted: &[CertificateDer<'static>]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    trusted.iter().for_each(|root| roots.add(root.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

/// Asks for `/healthz` over a new connection. An error: the certificate is not trusted.
async fn healthz(base: &str, trusted: &[CertificateDer<'static>]) -> std::io::Result<String> {
    get("/healthz", base, trusted).await
}

async fn get(path: &str, base: &str, trusted: &[CertificateDer<'static>]) -> std::io::Result<String> {
    let address = base.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(client_config(trusted)))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn reload(program: &Program) -> reqwest::RequestBuilder {
    http_client().request(Method::POST, program.url("/v1/reload")).bearer_auth(OPERATOR)
}

/// Everything that a reload replaces, while callers with old and with new connections go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_and_settings_are_reloaded_under_load_without_a_loss() {
    let directory = Directory::new();
    let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let old = write_certificate(directory.path(), 2090);
    let toml = |level: &str| {
        let tls = format!("tls.cert = {:?}\ntls.key = {:?}\n", file("cert.pem"), file("key.pem"));
        pointing_at(&simulator, &format!("{tls}log.level = {level:?}\n"))
    };
    let program = Program::serve_exactly(&toml("info")).await;
    assert!(healthz(&program.base, std::slice::from_ref(&old)).await.unwrap().starts_with("HTTP/1.1 200"));
    let new = write_certificate(directory.path(), 2100);
    assert!(
        healthz(&program.base, std::slice::from_ref(&new)).await.is_err(),
        "the files alone change nothing"
    );

    let url = program.base.replace("127.0.0.1", "localhost");
    let both = [old.clone(), new.clone()];
    let client = || Client::builder().tls_backend_preconfigured(client_config(&both));
    let mut callers = Callers::with(&url, client);
    (0..8).for_each(|_| callers.add_restless(&url, client()));
    callers.deliver(50).await;
    program.signal("HUP");
    wait_until("the new one is shown", async || {
        healthz(&program.base, std::slice::from_ref(&new)).await.is_ok()
    })
    .await;
    callers.deliver(50).await;
    for level in ["debug", "info", "debug", "info"] {
        let reloads = program.log().matches("reloaded changed=\"log.level\"").count();
        std::fs::write(program.configuration(), toml(level)).unwrap();
        program.signal("HUP");
        wait_until("it is reloaded", async || {
            program.log().matches("reloaded changed=\"log.level\"").count() > reloads
        })
        .await;
        callers.deliver(20).await;
    }
    assert_eq!(callers.end().await, simulator.counts().gcm.delivered, "{}", program.log());

    assert!(healthz(&program.base, &[old]).await.is_err());
    let metrics = get("/metrics", &program.base, std::slice::from_ref(&new)).await.unwrap();
    let end = "pushlet_server_certificate_not_after_seconds 4102444800";
    assert!(metrics.contains(end), "the new certificate's end: {metrics}");
    wait_until("the log says so", async || program.log().contains("reloaded changed=\"tls.cert\"")).await;
    std::fs::write(directory.path().join("cert.pem"), "no certificate").unwrap();
    program.signal("HUP");
    wait_until("it is refused", async || program.log().contains("nothing was reloaded")).await;
    assert!(healthz(&program.base, std::slice::from_ref(&new)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_limits_and_the_log_are_replaced_and_other_keys_are_named() {
    let directory = Directory::new();
    let secret: PathBuf = directory.path().join("password");
    std::fs::write(&secret, "one").unwrap();
    let toml = |settings: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\nadmin.key = {OPERATOR:?}\nauth.username = \"me\"\nauth.password_file = {:?}\n\
             {settings}",
            secret.display().to_string()
        )
    };
    let program = Program::serve_exactly(&toml("")).await;
    let status = async |password: &str| {
        let request = http_client().get(program.url("/v1/applications")).basic_auth("me", Some(password));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((status("one").await, status("two").await), (200, 401));
    assert_eq!(expect(reload(&program), 200).await, json!({"changed": [], "needs_restart": []}));

    std::fs::write(&secret, "two").unwrap();
    let settings = "log.level = \"debug\"\nlimits.tenant.applications = 3\nlimits.requests = 7\n";
    std::fs::write(program.configuration(), toml(settings)).unwrap();
    let report = expect(reload(&program), 200).await;
    let changed = json!(["limits.tenant.applications", "log.level", "auth.password_file"]);
    assert_eq!(report, json!({"changed": changed, "needs_restart": ["limits.requests"]}));
    assert_eq!((status("one").await, status("two").await), (401, 200));
    let usage = http_client().get(program.url("/v1/tenants/default/usage")).bearer_auth(OPERATOR);
    assert_eq!(expect(usage, 200).await["limits"]["applications"]["limit"], 3);
    http_client().get(program.url("/healthz")).send().await.unwrap();
    wait_until("debug lines come", async || program.log().contains("path=\"/healthz\"")).await;
    let report = expect(reload(&program), 200).await;
    assert_eq!(report, json!({"changed": [], "needs_restart": ["limits.requests"]}));

    std::fs::write(program.configuration(), toml("limits.requsts = 7\n")).unwrap();
    let message = expect_error(reload(&program), 409, "invalid_configuration").await;
    assert!(message.contains("limits.requsts"), "{message}");
    assert_eq!(status("two").await, 200);
    let tenant = http_client().post(program.url("/v1/reload")).basic_auth("me", Some("two"));
    expect_error(tenant, 403, "admin_required").await;
    let audit = http_client().get(program.url("/v1/audit")).bearer_auth(OPERATOR);
    let audit: Value = expect(audit, 200).await["audit"].take();
    assert!(audit.as_array().unwrap().iter().all(|entry| entry["action"] == "server.reload"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_replaced_for_connections_that_are_opened_from_then_on() {
    let directory = Directory::new();
    let simulator = Simulator::start(Options::ephemeral(directory.path())).await.unwrap();
    // Another authority at first.
    write_certificate(directory.path(), 2100);
    let ca = simulator.credentials().ca_pem.display().to_string();
    let trusted = directory.path().join("cert.pem");
    let toml = pointing_at(&simulator, "").replace(&ca, &trusted.display().to_string());
    let program = Program::serve_exactly(&toml).await;
    let send = async || {
        let push = [("device_token", "a"), ("gcm_api_key", "key"), ("data", "{\"text\":\"x\"}")];
        let sent = http_client().post(program.url("/send_notification")).form(&push).send().await.unwrap();
        (sent.status().as_u16(), sent.text().await.unwrap())
    };
    let (status, told) = send().await;
    assert!(status >= 500, "{status}: {told}");
    std::fs::copy(&ca, &trusted).unwrap();
    assert!(send().await.0 >= 500, "the file alone changes nothing");
    program.signal("HUP");
    wait_until("the log says so", async || program.log().contains("reloaded changed=\"tls.extra_roots\""))
        .await;
    wait_until("the push service is trusted", async || send().await.0 == 200).await;
    std::fs::write(&trusted, "no certificate").unwrap();
    program.signal("HUP");
    wait_until("it is refused", async || program.log().contains("nothing was reloaded")).await;
    assert_eq!(send().await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_providers_are_loaded_again() {
    let directory = Directory::new();
    let toml = format!(
        "listen = \"127.0.0.1:0\"\nadmin.key = {OPERATOR:?}\nauth = {{ username = \"me\", password = \"one\" }}\n\
         providers.dir = {:?}",
        directory.path().display().to_string()
    );
    let program = Program::serve_exactly(&toml).await;
    let put = |name: &str, of: &str| std::fs::write(directory.path().join(name), component(of)).unwrap();
    let show = async || {
        let asked = http_client().get(program.url("/v1/providers/webhook")).basic_auth("me", Some("one"));
        let answer: Value = asked.send().await.unwrap().json().await.unwrap();
        answer["manifest"]["version"].as_str().map(str::to_owned)
    };
    let changed = json!({"changed": ["providers.dir: webhook"], "needs_restart": []});
    assert_eq!(show().await, None);
    put("any.wasm", "webhook");
    assert_eq!(expect(reload(&program), 200).await, changed);
    assert_eq!(show().await.as_deref(), Some("1"));
    assert_eq!(expect(reload(&program), 200).await["changed"], json!([]));
    put("any.wasm", "webhook_next");
    assert_eq!(expect(reload(&program), 200).await, changed);
    assert_eq!(show().await.as_deref(), Some("2"));

    put("broken.wasm", "bad_example");
    let message = expect_error(reload(&program), 409, "invalid_configuration").await;
    assert!(message.contains("broken.wasm") && message.contains("examples[0]"), "{message}");
    std::fs::remove_file(directory.path().join("broken.wasm")).unwrap();
    // An application that is wrong keeps the providers as they are.
    put("any.wasm", "webhook");
    let wrong = directory.path().join("wrong.toml");
    std::fs::write(&wrong, "provider = \"none\"\n").unwrap();
    let applications =
        format!("{toml}\nregistry.applications = {:?}", directory.path().display().to_string());
    std::fs::write(program.configuration(), &applications).unwrap();
    expect_error(reload(&program), 409, "invalid_configuration").await;
    assert_eq!(show().await.as_deref(), Some("2"));
    std::fs::remove_file(&wrong).unwrap();
    std::fs::remove_file(directory.path().join("any.wasm")).unwrap();
    let report = expect(reload(&program), 200).await;
    assert_eq!(report["changed"], json!(["registry.applications", "providers.dir: webhook"]));
    assert_eq!(show().await, None);
}
