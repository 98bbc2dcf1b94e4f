//! `pushlet send`: one notification to all tokens of a file, over one stream, with constant memory.

mod notification;
mod progress;
mod results;
mod stream;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};

use super::server::Server;
use super::{given, print};
use crate::config::Problem;
use progress::Progress;
use results::Results;
use targets::Targets;

/// Not every target was reached.
const SOME_FAILED: u8 = 3;

const HELP: &str = "\
A line of the file is a token, or a JSON object as a line of /v1/notifications:stream:
{\"target\": {\"topic\": \"news\"}} or {\"target\": \"TOKEN\", \"notification\": {\"badge\": 7}}.

With --resume, targets that have a final result in the results file are left out: delivered, unregistered,
replaced, rejected and unknown (which may have arrived). Those under way when a run was cut off are sent again.

Exit code: 0 every target was reached; 1 the send could not be done; 2 the command line is wrong; 3 some targets
were not reached.

Examples:
  pushlet send --application shop --title \"Order 7\" --body \"On its way\" tokens.txt
  psql -Atc 'select token from devices' | pushlet send --application shop --body Hello -
  pushlet send --application shop --body Hello tokens.txt --results results.ndjson --resume";

pub fn command() -> Command {
    Command::new("send")
        .about("Send a notification to many targets")
        .arg(
            Arg::new("targets")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The targets, one a line; - reads standard input"),
        )
        .arg(
            Arg::new("application")
                .long("application")
                .short('a')
                .value_name("ID")
                .required(true)
                .help("For whom it is sent"),
        )
        .args(notification::arguments())
        .arg(
            Arg::new("results")
                .long("results")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write each target's result here, as a line of JSON"),
        )
        .arg(
            Arg::new("resume")
                .long("resume")
                .action(ArgAction::SetTrue)
                .requires("results")
                .help("Go on where an earlier run with this results file ended"),
        )
        .after_help(HELP)
}

pub async fn run(server: &Server, matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let file = matches.get_one::<PathBuf>("targets").cloned().unwrap_or_default();
    let header = notification::header(matches)?;
    let results = matches.get_one::<PathBuf>("results");
    let mut results = Results::open(results.map(PathBuf::as_path), matches.get_flag("resume"))?;
    let targets = Targets::open(&file, results.take_done())?;
    let mut progress = Progress::new(targets.total(), targets.skipped());
    let end = stream::send(server, &header, targets, &mut results, &mut progress).await;
    progress.end();
    results.flush()?;
    let end = end.map_err(|problem| match progress.settled() {
        0 => problem,
        _ => Problem::new(format_args!("{problem} (so far {})", progress.summary())),
    })?;
    report(&end, &progress, matches.get_flag("json"))?;
    if let Some(why) = end.interrupted {
        return Err(Problem::new(format_args!(
            "the server ended the stream early ({why}); --resume goes on"
        )));
    }
    Ok(if progress.all_good() { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
}

fn report(end: &stream::End, progress: &Progress, as_json: bool) -> Result<(), Problem> {
    if as_json {
        let interrupted = end.interrupted.as_deref().map(Value::from);
        return print::json(&json!({
            "summary": progress.outcomes(),
            "skipped": progress.skipped(),
            "interrupted": interrupted,
        }));
    }
    match progress.skipped() {
        0 => {}
        1 => print::line("1 target had a result already")?,
        skipped => print::line(&format!("{skipped} targets had a result already"))?,
    }
    print::line(&progress.summary())?;
    end.examples.iter().try_for_each(|example| print::line(&format!("  {example}")))
}

/// What a target is told apart by: its line without space around it.
fn trimmed(line: &str) -> &str {
    line.trim_matches(|letter: char| letter.is_ascii_whitespace() || letter == '\u{feff}')
}

fn application(matches: &ArgMatches) -> &str {
    given(matches, "application")
}
