//! `pushlet delivery`: deliveries that outlive their callers, in a fleet.

use std::process::ExitCode;

use bytes::BytesMut;
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::Method;
use serde_json::{Value, json};

use super::server::ApiClient;
use super::terminal::{self, given, id, option};
use pushlet_settings::Problem;

/// Longest line of the results.
const LONGEST_LINE: usize = 1 << 20;
/// Not every target has its result yet.
const NOT_COMPLETE: u8 = 1;

const HELP: &str = "\
`results` prints a line of JSON for each result that is there, and last {\"cursor\": …, \"complete\": …}; --after goes
on from a cursor. It ends with code 1 if the delivery is not complete.

Examples:
  pushlet send --async --application shop --body Hello tokens.txt
  pushlet delivery show 0a1b2c3d4e5f60718293a4b5c6d7e8f9
  pushlet delivery results 0a1b2c3d4e5f60718293a4b5c6d7e8f9 > results.ndjson
  pushlet delivery cancel 0a1b2c3d4e5f60718293a4b5c6d7e8f9";

pub fn command() -> Command {
    let delivery = || id("id", "The delivery's id");
    let after = option("after", "CURSOR", "Only what was stored since the call that printed this cursor");
    Command::new("delivery")
        .about("List, show and cancel deliveries that outlive their callers, and read their results")
        .subcommand_required(true)
        .subcommand(Command::new("list").about("All of them, in the order of their last change"))
        .subcommand(Command::new("show").about("How far one is").arg(delivery()))
        .subcommand(Command::new("results").about("The results that are there").arg(delivery()).arg(after))
        .subcommand(Command::new("cancel").about("Send no more of one").arg(delivery()))
        .after_help(HELP)
}

/// The flag of `pushlet send`.
pub fn send_argument() -> Arg {
    Arg::new("async")
        .long("async")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["results", "resume", "ok"])
        .help("Hand the targets over to a fleet, and do not wait; see `pushlet delivery`")
}

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let (name, inner) = matches.subcommand().unwrap_or(("list", matches));
    let as_json = inner.get_flag("json");
    let shown = match name {
        "list" => {
            list(server, as_json).await?;
            return Ok(ExitCode::SUCCESS);
        }
        "results" => return results(server, given(inner, "id"), given(inner, "after")).await,
        "cancel" => server.json(server.request(Method::DELETE, &["deliveries", given(inner, "id")])).await?,
        _ => server.get(&["deliveries", given(inner, "id")]).await?,
    };
    print(&shown, as_json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints one delivery.
pub fn print(delivery: &Value, as_json: bool) -> Result<(), Problem> {
    if as_json { terminal::print_json(delivery) } else { terminal::print_object(delivery) }
}

async fn list(server: &ApiClient, as_json: bool) -> Result<(), Problem> {
    let (mut all, mut after) = (Vec::new(), Value::from("0"));
    while let Some(cursor) = after.as_str() {
        let path = format!("/v1/deliveries?after={cursor}");
        let mut page = server.json(server.plain(Method::GET, &path)).await?;
        all.extend(page["deliveries"].as_array().cloned().unwrap_or_default());
        after = page["next"].take();
    }
    if as_json {
        return terminal::print_json(&json!({ "deliveries": all }));
    }
    let columns = [
        ("ID", "/id"),
        ("APPLICATION", "/application_id"),
        ("CREATED", "/created"),
        ("TARGETS", "/targets"),
        ("CANCELLED", "/cancelled"),
    ];
    terminal::print_table(&all, &columns)
}

/// Prints the results, each line as it comes.
async fn results(server: &ApiClient, id: &str, after: &str) -> Result<ExitCode, Problem> {
    let request = server.request(Method::GET, &["deliveries", id, "results"]).query(&[("after", after)]);
    let mut response = server.answer(request).await?;
    let (mut buffer, mut last) = (BytesMut::new(), Value::Null);
    while let Some(piece) = response.chunk().await.map_err(|error| server.unreachable(&error))? {
        buffer.extend_from_slice(&piece);
        while let Some(length) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(length + 1);
            last = serde_json::from_slice(&line).map_err(|_| not_ours())?;
            terminal::print_json_line(&last)?;
        }
        if buffer.len() > LONGEST_LINE {
            return Err(not_ours());
        }
    }
    match last["complete"].as_bool() {
        Some(true) => Ok(ExitCode::SUCCESS),
        Some(false) => Ok(ExitCode::from(NOT_COMPLETE)),
        None => Err(Problem::new("the server's answer broke off; --after goes on from an earlier cursor")),
    }
}

fn not_ours() -> Problem {
    Problem::new("the server's response is not one of Pushlet")
}
