//! `pushlet send`: one notification to all tokens of a file, over one stream, with constant memory.

mod earlier;
mod notification;
mod progress;
mod results;
mod stop;
mod stream;
mod target;
mod targets;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use super::print;
use super::server::ApiClient;
use progress::ProgressDisplay;
use pushlet_settings::Problem;
use results::ResultsFile;
use stop::StopSignal;
use targets::TargetReader;

/// It could not be done, or not to the end.
const FAILED: u8 = 1;
/// Not every target was reached.
const SOME_FAILED: u8 = 3;
/// As shells have it of a program that Ctrl-C ended.
const STOPPED: u8 = 130;

/// What a target can come to, besides `delivered`, `valid` and `duplicate`, which are good in any case.
const STATUSES: [&str; 8] = [
    "unregistered",
    "rejected",
    "credential_rejected",
    "throttled",
    "unavailable",
    "unknown",
    "failed",
    "replaced",
];

const HELP: &str = "\
A line of the file is a token, which may stand in quotes, or a JSON object as a line of /v1/notifications:stream:
{\"target\": {\"topic\": \"news\"}} or {\"target\": \"TOKEN\", \"notification\": {\"badge\": 7}}. Blank lines, and lines
that begin with #, are left out.

With --resume, targets that have a final result in the results file are left out: delivered, unregistered,
replaced, rejected, unknown (which may have arrived), and duplicates in another spelling. Those in
flight when a run was cut off are sent again. The application and the notification must be the same as before.

Ctrl-C reads no further, waits for what is in flight, and prints how to go on; a second one ends at once.

Exit codes:
    0  every target was reached, or has a status that --ok names
    1  the send could not be done, or the server ended it early
    2  the command line is wrong
    3  some targets were not reached
  130  Ctrl-C ended it

Examples:
  pushlet send --application shop --title \"Order 7\" --body \"On its way\" tokens.txt
  pushlet send --application shop --body Hello --to TOKEN
  psql -Atc 'select token from devices' | pushlet send --application shop --body Hello --ok unregistered -
  pushlet send --application shop --body Hello tokens.txt --results results.ndjson --resume";

pub fn command() -> Command {
    Command::new("send")
        .about("Send a notification to many targets")
        .arg(
            Arg::new("targets")
                .value_name("FILE")
                .required_unless_present("to")
                .value_parser(value_parser!(PathBuf))
                .help("The targets, one a line; - reads standard input"),
        )
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("TOKEN")
                .action(ArgAction::Append)
                .conflicts_with("targets")
                .value_parser(NonEmptyStringValueParser::new())
                .help("A target, instead of a file of them; may be given many times"),
        )
        .arg(
            Arg::new("ok")
                .long("ok")
                .value_name("STATUS")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(STATUSES)
                .help("Counts as reached for the exit code; may be given many times"),
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

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let header = notification::header(matches)?;
    let results = matches.get_one::<PathBuf>("results");
    let mut results = ResultsFile::open(results.map(PathBuf::as_path), matches.get_flag("resume"), &header)?;
    let all = |name| matches.get_many::<String>(name).unwrap_or_default().cloned().collect::<Vec<_>>();
    let targets = match matches.get_one::<PathBuf>("targets") {
        Some(file) => TargetReader::open(file, results.take_done())?,
        None => TargetReader::given(all("to"), results.take_done()),
    };
    let mut progress = ProgressDisplay::new(targets.total(), targets.skipped(), all("ok"));
    let end = stream::send(server, &header, targets, &mut results, &mut progress, StopSignal::listen()).await;
    progress.end();
    results.flush()?;
    let end = end.map_err(|problem| match progress.settled() {
        0 => problem,
        _ => Problem::new(format_args!("{problem} (so far {})", progress.summary())),
    })?;
    report(&end, &progress, matches.get_flag("json"))?;
    let code = match (end.stopped, &end.interrupted) {
        (true, _) => STOPPED,
        (false, Some(why)) => {
            let told = print::printable(&format!("the server ended the stream early ({why})"));
            let _ = writeln!(std::io::stderr(), "pushlet: {told}");
            FAILED
        }
        (false, None) => return Ok(exit_code(&progress)),
    };
    let _ = writeln!(std::io::stderr(), "{}", stop::how_to_go_on(matches.contains_id("results")));
    Ok(ExitCode::from(code))
}

fn exit_code(progress: &ProgressDisplay) -> ExitCode {
    if progress.all_good() { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) }
}

fn report(end: &stream::StreamEnd, progress: &ProgressDisplay, as_json: bool) -> Result<(), Problem> {
    if as_json {
        // As the last line of a stream has it: every status is there, and `interrupted` if it was.
        let statuses: Vec<&str> = STATUSES.into_iter().chain(["delivered", "valid", "duplicates"]).collect();
        let mut shown = json!({ "summary": progress.outcomes(&statuses), "skipped": progress.skipped() });
        if let Some(why) = &end.interrupted {
            shown["interrupted"] = why.as_str().into();
        }
        return print::json(&shown);
    }
    match progress.skipped() {
        0 => {}
        1 => print::line("1 target had a result already")?,
        skipped => print::line(&format!("{skipped} targets had a result already"))?,
    }
    print::line(&progress.summary())?;
    end.examples.iter().try_for_each(|example| print::line(&format!("  {example}")))
}
