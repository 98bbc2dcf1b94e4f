//! `pushlet provider`: the components that speak to push services.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::oci::{self, Reference};
use super::server::ApiClient;
use super::terminal::{self, confirm, deletion, given, id};
use pushlet_settings::Problem;

pub fn command() -> Command {
    let name = || id("name", "The provider's name");
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .help("A WebAssembly component, or oci://HOST/REPOSITORY@sha256:DIGEST, which is pulled first");
    Command::new("provider")
        .about("List, show, upload, activate and delete providers")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All providers and their health"))
        .subcommand(Command::new("show").about("One provider and its versions").arg(name()))
        .subcommand(
            Command::new("upload")
                .about("Upload a version, and use it")
                .arg(name())
                .arg(file)
                .arg(confirm_hosts())
                .arg(oci::key_argument())
                .args(oci::arguments()),
        )
        .subcommand(
            Command::new("activate")
                .about("Use a stored version")
                .arg(name())
                .arg(id("digest", "SHA-256 of the version")),
        )
        .subcommand(
            Command::new("log").about("Its last calls, what it printed, and where it trapped").arg(name()),
        )
        .subcommand(capture_command().arg(name()))
        .subcommand(deletion("Delete all versions of a provider").arg(name()))
        .after_help("Example:\n  pushlet provider upload webhook target/wasm32-wasip2/release/webhook.wasm")
}

fn capture_command() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let number = |name: &'static str, value| {
        Arg::new(name).long(name).value_name(value).value_parser(value_parser!(u32)).requires("start")
    };
    Command::new("capture")
        .about("Record its sends that fail, and print the records, for `pushlet provider replay`")
        .arg(flag("start").help("Record from now on, and drop the records before"))
        .arg(number("records", "NUMBER").help("End when so many are kept [default: 20]"))
        .arg(number("seconds", "SECONDS").help("End after so long [default: 3600]"))
        .arg(
            Arg::new("application")
                .long("application")
                .value_name("ID")
                .requires("start")
                .help("Sends for this application alone"),
        )
        .arg(flag("all").requires("start").help("Sends of which all targets were delivered too"))
        .arg(flag("stop").conflicts_with("start").help("End, and drop the records"))
        .after_help(
            "Example:\n  pushlet provider capture acme --start --application shop\n  pushlet provider capture acme > \
             records.json\n  pushlet provider replay records.json --with mended.wasm",
        )
}

/// Switches a capture on or off, or prints it.
async fn capture(server: &ApiClient, matches: &ArgMatches, name: &str) -> Result<(), Problem> {
    let path = ["providers", name, "capture"];
    if matches.get_flag("stop") {
        return server.delete(&path).await;
    }
    if !matches.get_flag("start") {
        return terminal::print_json(&server.get(&path).await?);
    }
    let number = |name: &str| matches.get_one::<u32>(name);
    let body = json!({"records": number("records"), "seconds": number("seconds"),
        "application_id": matches.get_one::<String>("application"), "all": matches.get_flag("all")});
    show(matches, &server.write(Method::PUT, &path, &body).await?)
}

/// Returns `--confirm-hosts`.
pub fn confirm_hosts() -> Arg {
    Arg::new("confirm-hosts")
        .long("confirm-hosts")
        .value_name("HOSTS")
        .help("Hosts, joined by commas, that may get secrets though the version before sent none there")
}

/// Uploads a version of a provider, and prints what the server says of it.
pub async fn upload(matches: &ArgMatches, name: &str, component: Vec<u8>) -> Result<(), Problem> {
    let uploaded = put(&ApiClient::new(matches)?, matches, name, component).await?;
    show(matches, &uploaded)
}

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let (command, inner) = matches.subcommand().unwrap_or(("list", matches));
    let name = inner.try_get_one::<String>("name").ok().flatten().map_or("", String::as_str);
    let as_json = inner.get_flag("json");
    let shown = match command {
        "upload" => {
            let component = component(inner).await?;
            put(server, inner, name, component).await?
        }
        "activate" => {
            let body = json!({ "digest": given(inner, "digest") });
            server.write(Method::POST, &["providers", name, "activate"], &body).await?
        }
        "show" => server.get(&["providers", name]).await?,
        "delete" => {
            confirm(inner, &format!("all versions of the provider {name}"))?;
            return server.delete(&["providers", name]).await;
        }
        "capture" => return capture(server, inner, name).await,
        "log" => {
            let log = server.get(&["providers", name, "log"]).await?;
            return if as_json { terminal::print_json(&log) } else { print_log(&log) };
        }
        _ => {
            let providers = server.get(&["status"]).await?["providers"].take();
            if as_json {
                return terminal::print_json(&json!({ "providers": providers }));
            }
            let columns = [
                ("NAME", "/name"),
                ("DIGEST", "/digest"),
                ("FAILURES", "/failures"),
                ("QUARANTINED", "/quarantined"),
            ];
            return terminal::print_table(
                providers.as_array().map(Vec::as_slice).unwrap_or_default(),
                &columns,
            );
        }
    };
    show(inner, &shown)
}

/// Returns the component that `upload` names. One in a registry is verified before the server sees any of it.
async fn component(matches: &ArgMatches) -> Result<Vec<u8>, Problem> {
    let file = given(matches, "file");
    if file.starts_with(oci::SCHEME) {
        let (reference, key) = (Reference::parse(file)?, oci::key(matches)?);
        return Ok(oci::pull(&reference, key.as_ref(), &oci::access(matches)).await?.0);
    }
    if matches.contains_id("key") {
        return Err(Problem::new("--key: only what is pulled from a registry has a signature"));
    }
    std::fs::read(file).map_err(|error| Problem::new(format_args!("{file}: {error}")))
}

async fn put(
    server: &ApiClient,
    matches: &ArgMatches,
    name: &str,
    component: Vec<u8>,
) -> Result<Value, Problem> {
    let mut path = format!("/v1/providers/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
    if let Some(hosts) = matches.get_one::<String>("confirm-hosts") {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        path = format!("{path}?{}", query.append_pair("confirm_hosts", hosts).finish());
    }
    let request = server.plain(Method::PUT, &path);
    server.json(request.header("content-type", "application/wasm").body(component)).await
}

fn show(matches: &ArgMatches, value: &Value) -> Result<(), Problem> {
    if matches.get_flag("json") { terminal::print_json(value) } else { terminal::print_object(value) }
}

/// Prints a line for a call; what it printed stands in the log above it already.
fn print_call(call: &Value) -> Result<(), Problem> {
    let text = |name: &str| call[name].as_str().unwrap_or("-");
    let (at, function, application, request) =
        (text("at"), text("call"), text("application_id"), text("request_id"));
    let ended = call["error"].as_str().unwrap_or("ok");
    let ms = call["ms"].as_f64().unwrap_or_default();
    terminal::print_line(&format!("{at} {function} {application} request={request} {ms:.1} ms: {ended}"))
}

fn print_log(log: &Value) -> Result<(), Problem> {
    let refused = log.get("refused_upload");
    for version in log["versions"].as_array().into_iter().flatten().chain(refused) {
        terminal::print_line(&format!("== {}", version["digest"].as_str().unwrap_or_default()))?;
        for line in version["log"].as_str().unwrap_or_default().lines() {
            // Indented, so that no line of a component looks like one of ours.
            terminal::print_line(&format!("  {line}"))?;
        }
        version["calls"].as_array().into_iter().flatten().try_for_each(print_call)?;
    }
    Ok(())
}
