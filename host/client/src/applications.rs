//! `pushlet app`: the applications that a tenant sends for.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::server::ApiClient;
use super::terminal::{self, confirm, deletion, given, id, pairs, split};
use pushlet_settings::Problem;

const EXAMPLES: &str = "\
Examples:
  pushlet app put shop --credential apns_p12=shop.p12 --credential apns_p12_pass=password.txt
  pushlet app put news --credential apns_p8=AuthKey_KEY.p8 --setting apns_key_id=KEY --setting apns_team_id=TEAM \\
      --setting apns_topic=com.example.news --environment development
  pushlet app put droid --credential fcm_service_account=account.json
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
        return terminal::print_json(&json!({ "applications": all, "next": null }));
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
    let wrong = |error| Problem::new(format_args!("{file}: {error}"));
    let mut bytes = Zeroizing::new(Vec::new());
    if file == "-" {
        std::io::stdin().read_to_end(&mut bytes).map_err(wrong)?;
    } else {
        *bytes = std::fs::read(file).map_err(wrong)?;
    }
    // Editors end a text with a line break, which is not part of the secret; binary files stay as they are.
    let line = bytes.trim_ascii_end().len();
    if bytes.get(..line).is_some_and(|line| line.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '))
    {
        bytes.truncate(line);
    }
    Ok(bytes)
}
