//! `pushlet app`: the applications that a tenant sends for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::server::ApiClient;
use super::terminal::{self, confirm, deletion, given, id, pairs, split};
use pushlet_model::contract::Environment;
use pushlet_settings::Problem;
use pushlet_settings::applications::{read_applications, read_credential, trim_line};

/// Letters that do not stand in the name of a file as they are.
const FILE_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

const EXAMPLES: &str = "\
Examples:
  pushlet app put shop --credential apns_p12=shop.p12 --credential apns_p12_pass=password.txt
  pushlet app put news --credential apns_p8=AuthKey_KEY.p8 --setting apns_key_id=KEY --setting apns_team_id=TEAM \\
      --setting apns_topic=com.example.news --environment development
  pushlet app put droid --credential fcm_service_account=account.json
  pushlet app export apps.d && pushlet app import apps.d --server https://new.example
  pushlet app list --server https://push.example.com";

pub fn command() -> Command {
    let many =
        |name: &'static str, value| Arg::new(name).long(name).value_name(value).action(ArgAction::Append);
    let put = Command::new("put")
        .visible_alias("register")
        .about("Register an application, or replace it")
        .arg(id("id", "The application's id"))
        .arg(Arg::new("provider").long("provider").value_name("NAME").help("If not given, the one that takes the credential"))
        .arg(
            Arg::new("environment")
                .long("environment")
                .value_name("NAME")
                .value_parser(["production", "development"])
                .help("The push service's environment"),
        )
        .arg(many("setting", "NAME=VALUE").help("One of the provider's settings"))
        .arg(
            many("credential", "NAME=FILE")
                .help("A secret's field and the file that holds it; - reads standard input. One line of text loses its line break"),
        )
        .after_help(EXAMPLES);
    Command::new("app")
        .about("List, show, register and delete applications, and show what belongs to them")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All applications"))
        .subcommand(Command::new("show").about("One application").arg(id("id", "The application's id")))
        .subcommand(put)
        .subcommand(
            Command::new("export")
                .about("Write a file for each application, without secrets, which no server gives away")
                .arg(directory())
                .arg(id("id", "The application's id; all if none is given").required(false)),
        )
        .subcommand(
            Command::new("import")
                .about("Register the applications that the files of a directory describe")
                .arg(directory()),
        )
        .subcommand(deletion("Delete an application").arg(id("id", "The application's id")))
        .subcommand(
            Command::new("feedback")
                .about("Tokens that were reported dead since the last call, which are then forgotten")
                .arg(id("id", "The application's id")),
        )
        .subcommand(
            Command::new("channels")
                .about("The broadcast channels of an application, where its push service has them")
                .arg(id("id", "The application's id")),
        )
        .after_help(EXAMPLES)
}

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let (name, inner) = matches.subcommand().unwrap_or(("list", matches));
    let application = inner.try_get_one::<String>("id").ok().flatten().map_or("", String::as_str);
    let shown = match name {
        "put" => server.write(Method::PUT, &["applications", application], &registration(inner)?).await?,
        "show" => server.get(&["applications", application]).await?,
        "delete" => {
            confirm(inner, &format!("the application {application}"))?;
            return server.delete(&["applications", application]).await;
        }
        "export" => return export(server, inner).await,
        "import" => return import(server, inner).await,
        "feedback" => {
            let answer = server.get(&["applications", application, "feedback"]).await?;
            let columns = [("TOKEN", "/device_token"), ("REPORTED", "/timestamp")];
            return listed(&answer, "dead_tokens", &columns, inner.get_flag("json"));
        }
        "channels" => {
            let answer = server.get(&["applications", application, "channels"]).await?;
            return if inner.get_flag("json") {
                terminal::print_json(&answer)
            } else {
                terminal::print_object(&answer)
            };
        }
        _ => return list(server, inner.get_flag("json")).await,
    };
    if inner.get_flag("json") { terminal::print_json(&shown) } else { terminal::print_object(&shown) }
}

fn listed(answer: &Value, name: &str, columns: &[(&str, &str)], as_json: bool) -> Result<(), Problem> {
    if as_json {
        return terminal::print_json(answer);
    }
    terminal::print_table(answer[name].as_array().map(Vec::as_slice).unwrap_or_default(), columns)
}

async fn list(server: &ApiClient, as_json: bool) -> Result<(), Problem> {
    let all = server.all("applications").await?;
    if as_json {
        return terminal::print_json(&json!({ "applications": all, "total": all.len(), "next": null }));
    }
    let columns = [
        ("ID", "/id"),
        ("PROVIDER", "/provider"),
        ("ENVIRONMENT", "/environment"),
        ("CREDENTIAL", "/credential/credential"),
        ("ENDS", "/credential/not_after"),
    ];
    terminal::print_table(&all, &columns)
}

fn directory() -> Arg {
    let path = Arg::new("directory").value_name("DIRECTORY").value_parser(value_parser!(PathBuf));
    path.required(true).help("Of files NAME.toml, as registry.applications has them")
}

fn directory_of(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("directory").map_or(Path::new(""), PathBuf::as_path)
}

async fn export(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let directory = directory_of(matches);
    let wrong = |path: &Path, error| Problem::new(format_args!("{}: {error}", path.display()));
    std::fs::create_dir_all(directory).map_err(|error| wrong(directory, error))?;
    let all = match given(matches, "id") {
        "" => server.all("applications").await?,
        id => vec![server.get(&["applications", id]).await?],
    };
    let mut manifests = BTreeMap::new();
    for application in &all {
        let (id, provider) = (text(application, "id"), text(application, "provider"));
        if !manifests.contains_key(provider) {
            manifests.insert(provider, server.get(&["providers", provider]).await?["manifest"].take());
        }
        // As part of a path, an id could lead out of the directory.
        let name = utf8_percent_encode(id, FILE_NAME).to_string();
        let path = directory.join(format!("{name}.toml"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| wrong(&path, error))?;
        let content = description(application, &manifests[provider], &name);
        file.write_all(content.as_bytes()).map_err(|error| wrong(&path, error))?;
    }
    terminal::print_line(&format!("{} applications in {}", all.len(), directory.display()))
}

async fn import(server: &ApiClient, matches: &ArgMatches) -> Result<(), Problem> {
    let files = read_applications(directory_of(matches))?;
    let tenants: BTreeSet<_> = files.iter().map(|file| &file.tenant).collect();
    if tenants.len() > 1 {
        return Err(Problem::new(
            "the files are of several tenants, and are registered with the key of one: import them tenant by tenant",
        ));
    }
    for file in &files {
        let encode = |(name, secret): (String, Zeroizing<Vec<u8>>)| {
            (name, json!({ "base64": STANDARD.encode(&*secret) }))
        };
        let credentials: Map<_, _> = file.secrets()?.into_iter().map(encode).collect();
        let mut body = json!({ "settings": file.settings, "credentials": credentials });
        if let Some(provider) = &file.provider {
            body["provider"] = provider.as_str().into();
        }
        if let Some(environment) = file.environment {
            let is_production = environment == Environment::Production;
            body["environment"] = if is_production { "production" } else { "development" }.into();
        }
        let registered = server.write(Method::PUT, &["applications", &file.id], &body).await;
        registered.map_err(|problem| Problem::new(format_args!("{}: {problem}", file.path.display())))?;
        terminal::print_line(&file.id)?;
    }
    Ok(())
}

/// Returns the file that describes an application. The secrets are named as files that the reader puts there.
fn description(application: &Value, manifest: &Value, name: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut lines = Vec::new();
    for field in ["id", "provider", "environment"] {
        lines.push(format!("{field} = {}", quoted(text(application, field))));
    }
    lines.push("\n[settings]".to_owned());
    for (name, value) in application["settings"].as_object().into_iter().flatten() {
        lines.push(format!("{} = {}", quoted(name), quoted(value.as_str().unwrap_or_default())));
    }
    let kind = application["credential"]["credential"].as_str();
    let forms = manifest["credential_forms"].as_array();
    let form = forms.into_iter().flatten().find(|form| form["name"].as_str() == kind);
    if let Some(form) = form.filter(|_| kind.is_some()) {
        lines.push("\n# Secrets stay with the server: put their files here.\n[credentials]".to_owned());
        let all = |field| form[field].as_array().into_iter().flatten();
        // One of the secrets is needed, and all companions.
        for (at, secret) in all("secrets").enumerate() {
            lines.push(format!(
                "{}{}",
                if at > 0 { "# " } else { "" },
                secret_line(text(secret, "name"), name)
            ));
            lines.extend(
                secret["password"].as_str().map(|password| format!("# {}", secret_line(password, name))),
            );
        }
        lines.extend(all("companions").map(|secret| secret_line(text(secret, "name"), name)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn secret_line(field: &str, name: &str) -> String {
    format!("{field} = {}", toml::Value::from(format!("{name}.{field}")))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

fn registration(matches: &ArgMatches) -> Result<Value, Problem> {
    let mut credentials = Map::new();
    for pair in matches.get_many::<String>("credential").unwrap_or_default() {
        let (name, file) = split(pair, "credential")?;
        credentials.insert(name.to_owned(), json!({ "base64": STANDARD.encode(&*secret(file)?) }));
    }
    let mut body = json!({ "settings": pairs(matches, "setting")?, "credentials": credentials });
    for name in ["provider", "environment"] {
        match given(matches, name) {
            "" => {}
            value => body[name] = value.into(),
        }
    }
    Ok(body)
}

fn secret(file: &str) -> Result<Zeroizing<Vec<u8>>, Problem> {
    if file != "-" {
        return read_credential(Path::new(file));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Problem::new(format_args!("{file}: {error}")))?;
    trim_line(&mut bytes);
    Ok(bytes)
}
