//! `pushlet dev`: a provider at work while it is written. One process has the gateway and a recorder, to which every
//! connection of the gateway leads; at each change the component is built, uploaded and sent its own examples.
//!
//! - `project`: what is watched and built
//! - `registration`: an application with throw-away credentials, and the pushes, of the manifest's examples
//! - `display`: what is printed

mod display;
mod project;
mod registration;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::kit::compiled_code;
use super::serve::stop_signal;
use crate::bootstrap;
use crate::server::Server;
use display::{fail, outcome, print_recorded, say};
use project::Project;
use pushlet_api::{self as api, Observability, log};
use pushlet_model::contract::manifest::ProviderManifest;
use pushlet_model::tenant::TenantId;
use pushlet_model::text::Escaped;
use pushlet_sandbox::GuestLog;
use pushlet_settings::{Config, ConfigLayers, Problem};
use pushlet_simulator::recorder::Recorder;
use pushlet_transport::http_client;
use registration::ThrowAway;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// For what is in flight at the end.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The configuration; the address comes from the command line.
const CONFIG: &str = "\
log.level = \"warn\"
# A built-in provider may be under test as well.
providers.allow_shadowing = true
# The developer's own machine, and a large runtime perhaps.
providers.compile_timeout = \"10m\"
providers.compile_cpu = \"10m\"
# Builds and editors want the processor too.
providers.low_priority = false
";

const EXAMPLES: &str = "\
Needs no account, no certificate and no network: the gateway's connections all lead to a recorder in the same process,
which answers as the file of answers says, else 200 with {}, and with an access token where one is asked for. The file
is a list; the first rule that fits counts, and each part may be missing:

  [{\"host\": \"push.example\", \"path\": \"/v1/*\", \"token\": \"dead\", \"status\": 410, \"headers\": {\"retry-after\": \"2\"},
    \"body\": {\"error\": \"gone\"}, \"delay_ms\": 0}]

A provider with a protocol of its own gets bytes: hex, 'text', and {4..8} for these bytes of the message. `received` is how
the message begins (`..`: any byte), `length` where it says how long it is; without `received`, it is a greeting.

  [{\"received\": \"02\", \"length\": {\"at\": 1, \"bytes\": 4, \"more\": 5}, \"send\": \"08 {5..9}\", \"close\": true}]

In a folder, the command that builds it is that of the templates: cargo, npm run build or componentize-py.

Examples:
  pushlet dev acme
  pushlet dev acme.wasm --answers answers.json --once";

pub fn command() -> Command {
    let file = |name: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf))
    };
    Command::new("dev")
        .about("Build, upload and send the examples of a provider at each change, to a recorder")
        .arg(
            Arg::new("path")
                .value_name("DIR|FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The provider's folder, or a component"),
        )
        .arg(
            Arg::new("build")
                .long("build")
                .value_name("COMMAND")
                .help("What builds it, for the shell in its folder"),
        )
        .arg(file("component").help("What the build makes [default: the newest .wasm]"))
        .arg(file("answers").help("The recorder's answers [default: answers.json in the folder]"))
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .help("Where the gateway listens, for pushes of your own [default: 127.0.0.1:9292]"),
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("End after the first time; exit code 1 if an example was not delivered"),
        )
        .after_help(EXAMPLES)
}

/// Runs until a signal, or once.
pub async fn run(matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let stop = stop_signal()?;
    let mut project = Project::new(matches)?;
    let recorder = Recorder::start(Some(project.answers().to_owned()), Box::new(print_recorded));
    let recorder = recorder.await.map_err(Problem::new)?;
    let config = config(matches.get_one("listen"))?;
    let _flush = log::start(&config.log, None);
    let mut bench = Bench::start(recorder, &config).await?;
    let once = matches.get_flag("once");
    let result = tokio::select! {
        () = stop => Ok(ExitCode::SUCCESS),
        result = watch(&mut project, &mut bench, once) => result,
    };
    bench.stop().await;
    result
}

async fn watch(project: &mut Project, bench: &mut Bench, once: bool) -> Result<ExitCode, Problem> {
    loop {
        let changed = project.changes();
        let done = if changed.sources { bench.renew(project).await? } else { true };
        let delivered = done && (changed.sources || changed.answers) && bench.send_examples().await?;
        if once {
            return Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if changed.sources || changed.answers {
            say("-- waiting for a change\n")?;
        }
        project.wait_for_change(LOOK).await;
    }
}

fn config(listen: Option<&String>) -> Result<Config, Problem> {
    let mut layers = ConfigLayers::new()?;
    layers.text(Path::new("pushlet dev"), CONFIG)?;
    if let Some(folder) = compiled_code() {
        layers.flag("providers-cache-dir", &[folder.display().to_string()])?;
    }
    listen.map_or(Ok(()), |address| layers.flag("listen", std::slice::from_ref(address)))?;
    layers.finish()
}

/// The gateway with its recorder, and the provider that is in it now.
struct Bench {
    recorder: Recorder,
    base: String,
    client: reqwest::Client,
    secrets: ThrowAway,
    provider: Option<ProviderManifest>,
    /// What the provider's log had.
    printed: String,
    gateway: pushlet_gateway::Gateway,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Bench {
    async fn start(recorder: Recorder, config: &Config) -> Result<Self, Problem> {
        let gateway = bootstrap::gateway_to(config, recorder.address(), recorder.authority().clone())?;
        let observability = Observability::new(None, false);
        let (router, in_flight) =
            api::router(gateway.clone(), &config.limits, &config.callers()?, &observability);
        let listener = TcpListener::bind(config.listen.to_string()).await;
        let listener = listener
            .map_err(|error| Problem::new(format_args!("cannot listen on {}: {error}", config.listen)))?;
        let base = format!("http://{}", listener.local_addr().map_err(Problem::new)?);
        let (stop, stopped) = oneshot::channel();
        let server = Server::new(router, in_flight, None, config);
        let serving = tokio::spawn(server.run(listener, async {
            let _ = stopped.await;
        }));
        say(&format!("The gateway is at {base}; all its connections lead to the recorder.\n"))?;
        Ok(Self {
            recorder,
            base,
            client: http_client(&[]).map_err(Problem::new)?,
            secrets: ThrowAway::default(),
            provider: None,
            printed: String::new(),
            gateway,
            stop: Some(stop),
            serving,
        })
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.gateway.close(CLOSE_TIME).await;
        self.serving.abort();
    }

    /// Builds and uploads it. Returns false if that failed, which was printed.
    async fn renew(&mut self, project: &mut Project) -> Result<bool, Problem> {
        self.provider = None;
        let component = match project.build().await {
            Ok((file, component)) => {
                say(&format!("\n== {}, {} bytes\n", file.display(), component.len()))?;
                component
            }
            Err(problem) => return fail(&problem.to_string()),
        };
        // Only the component itself says its name. While it is loaded here, the upload does not compile it again.
        let log = Arc::<GuestLog>::default();
        let tenant = TenantId::default_tenant();
        let provider = match self.gateway.uploads().load(&tenant, component.clone(), &log).await {
            Ok(provider) => provider,
            Err(error) => {
                say(&log.text().lines().map(|line| format!("| {}\n", Escaped(line))).collect::<String>())?;
                return fail(&error.message);
            }
        };
        let manifest = provider.manifest().clone();
        let mut path = format!("/v1/providers/{}", manifest.name);
        let mut uploaded = self.call(Method::PUT, &path, "application/wasm", component.clone()).await?;
        if uploaded.1["error"] == "hosts_changed" {
            let hosts = uploaded.1["hosts"].as_array().into_iter().flatten();
            let hosts: Vec<&str> = hosts.filter_map(|host| host["host"].as_str()).collect();
            path = format!("{path}?confirm_hosts={}", hosts.join(","));
            uploaded = self.call(Method::PUT, &path, "application/wasm", component).await?;
        }
        if uploaded.0 != 200 {
            return fail(uploaded.1["message"].as_str().unwrap_or_default());
        }
        say(&format!("{} {} is active\n", Escaped(&manifest.name), Escaped(&manifest.version)))?;
        self.recorder.answer_otherwise(registration::token_answers(&manifest));
        // What it printed when it was uploaded is no part of a push.
        self.printed = self.log(&manifest.name).await?;
        self.provider = Some(manifest);
        Ok(true)
    }

    /// Returns true if each was delivered.
    async fn send_examples(&mut self) -> Result<bool, Problem> {
        let Some(manifest) = self.provider.clone() else { return Ok(false) };
        let mut all = true;
        for (number, example) in manifest.examples.iter().enumerate() {
            say(&format!("\n-- examples[{number}] to {}\n", Escaped(&example.target)))?;
            let id = format!("{}-{number}", manifest.name);
            let application = self.secrets.application(&manifest, example)?;
            let path = format!("/v1/applications/{id}");
            let registered = self.json(Method::PUT, &path, &application).await?;
            if !(200..300).contains(&registered.0) {
                all = fail(registered.1["message"].as_str().unwrap_or_default())?;
                continue;
            }
            let push = registration::push(&manifest, example, &id);
            let (status, answer) = self.json(Method::POST, "/v1/notifications", &push).await?;
            self.print_log(&manifest.name).await?;
            let result = answer.pointer("/results/0");
            all &= result.is_some_and(|result| {
                ["delivered", "valid"].iter().any(|status| result["status"] == *status)
            });
            match result {
                Some(result) => say(&format!("= {}\n", outcome(result)))?,
                None => say(&format!("= {status} {}\n", Escaped(&answer)))?,
            }
        }
        Ok(all)
    }

    /// Prints what the provider has printed since the last time.
    async fn print_log(&mut self, name: &str) -> Result<(), Problem> {
        let log = self.log(name).await?;
        let new = log.strip_prefix(self.printed.as_str()).unwrap_or(&log);
        let lines: String = new.lines().map(|line| format!("| {}\n", Escaped(line))).collect();
        self.printed = log;
        say(&lines)
    }

    async fn log(&self, name: &str) -> Result<String, Problem> {
        let (_, log) = self.call(Method::GET, &format!("/v1/providers/{name}/log"), "", Vec::new()).await?;
        Ok(log.pointer("/versions/0/log").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Result<(u16, Value), Problem> {
        self.call(method, path, "application/json", body.to_string().into_bytes()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Value), Problem> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let response = request.header("content-type", kind).body(body).send().await.map_err(Problem::new)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(Problem::new)?;
        Ok((status, serde_json::from_str(&text).unwrap_or_else(|_| json!({ "message": text }))))
    }
}
