//! `pushlet provider`: the components that speak to push services.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::ApiClient;
use super::terminal::{self, confirm, deletion, given, id};
use pushlet_settings::Problem;

pub fn command() -> Command {
    let name = || id("name", "The provider's name");
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("A WebAssembly component built for the world http-provider");
    let confirm_hosts = Arg::new("confirm-hosts")
        .long("confirm-hosts")
        .value_name("HOSTS")
        .help("Hosts, joined by commas, that may get secrets though the version before sent none there");
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
                .arg(confirm_hosts),
        )
        .subcommand(
            Command::new("activate")
                .about("Use a stored version")
                .arg(name())
                .arg(id("digest", "SHA-256 of the version")),
        )
        .subcommand(Command::new("log").about("What a provider printed, and where it trapped").arg(name()))
        .subcommand(deletion("Delete all versions of a provider").arg(name()))
        .after_help("Example:\n  pushlet provider upload webhook target/wasm32-wasip2/release/webhook.wasm")
}

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let (command, inner) = matches.subcommand().unwrap_or(("list", matches));
    let name = inner.try_get_one::<String>("name").ok().flatten().map_or("", String::as_str);
    let as_json = inner.get_flag("json");
    let shown = match command {
        "upload" => {
            let file = inner.get_one::<PathBuf>("file").map_or(Path::new(""), PathBuf::as_path);
            let wrong = |error| Problem::new(format_args!("{}: {error}", file.display()));
            let component = std::fs::read(file).map_err(wrong)?;
            let mut path = format!("/v1/providers/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
            if let Some(hosts) = inner.get_one::<String>("confirm-hosts") {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                path = format!("{path}?{}", query.append_pair("confirm_hosts", hosts).finish());
            }
            let request = server.plain(Method::PUT, &path);
            server.json(request.header("content-type", "application/wasm").body(component)).await?
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
    if as_json { terminal::print_json(&shown) } else { terminal::print_object(&shown) }
}

fn print_log(log: &Value) -> Result<(), Problem> {
    let refused = log.get("refused_upload");
    for version in log["versions"].as_array().into_iter().flatten().chain(refused) {
        terminal::print_line(&format!("== {}", version["digest"].as_str().unwrap_or_default()))?;
        for line in version["log"].as_str().unwrap_or_default().lines() {
            // Indented, so that no line of a component looks like one of ours.
            terminal::print_line(&format!("  {line}"))?;
        }
    }
    Ok(())
}
