//! `pushlet send`: one notification to all tokens of a file, over one stream, with constant memory.

mod progress;
mod stream;
mod targets;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Map, Value, json};

use super::deliveries;
use super::server::ApiClient;
use super::terminal::{self, given, option, pairs};
use progress::{ProgressDisplay, StopSignal};
use pushlet_settings::Problem;
use targets::{ResultsFile, TargetReader};

/// The send failed, or was not finished.
const FAILED: u8 = 1;
/// Not every target was reached.
const SOME_FAILED: u8 = 3;
/// The code by which shells report a program that Ctrl-C ended.
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
    let targets = Arg::new("targets")
        .value_name("FILE")
        .required_unless_present("to")
        .value_parser(value_parser!(PathBuf))
        .help("The targets, one a line; - reads standard input");
    let to = option("to", "TOKEN", "A target, instead of a file of them; may be given many times")
        .action(ArgAction::Append)
        .conflicts_with("targets")
        .value_parser(NonEmptyStringValueParser::new());
    let ok = option("ok", "STATUS", "Counts as reached for the exit code; may be given many times")
        .action(ArgAction::Append)
        .value_delimiter(',')
        .value_parser(STATUSES);
    let application = option("application", "ID", "The application to send for").short('a').required(true);
    let results = option("results", "FILE", "Write each target's result here, as a line of JSON")
        .value_parser(value_parser!(PathBuf));
    let resume = Arg::new("resume")
        .long("resume")
        .action(ArgAction::SetTrue)
        .requires("results")
        .help("Go on where an earlier run with this results file ended");
    Command::new("send")
        .about("Send a notification to many targets")
        .args([targets, to, ok, application])
        .args(notification_arguments())
        .args([results, resume, deliveries::send_argument()])
        .after_help(HELP)
}

pub async fn run(server: &ApiClient, matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let header = stream_header(matches)?;
    let all = |name| matches.get_many::<String>(name).unwrap_or_default().cloned().collect::<Vec<_>>();
    if matches.get_flag("async") {
        let targets = match matches.get_one::<PathBuf>("targets") {
            Some(file) => TargetReader::open(file, Default::default())?,
            None => TargetReader::given(all("to"), Default::default()),
        };
        let delivery = stream::hand_over(server, &header, targets).await?;
        deliveries::print(&delivery, matches.get_flag("json"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let results = matches.get_one::<PathBuf>("results");
    let mut results = ResultsFile::open(results.map(PathBuf::as_path), matches.get_flag("resume"), &header)?;
    let targets = match matches.get_one::<PathBuf>("targets") {
        Some(file) => TargetReader::open(file, results.take_done())?,
        None => TargetReader::given(all("to"), results.take_done()),
    };
    let mut progress = ProgressDisplay::new(targets.total(), targets.skipped(), all("ok"));
    let end = stream::send(server, &header, targets, &mut results, &mut progress, StopSignal::listen()).await;
    progress.end();
    // Before an error is returned: the results so far must be in the file.
    results.flush()?;
    let end = end.map_err(|problem| match progress.settled() {
        0 => problem,
        _ => Problem::new(format_args!("{problem} (so far {})", progress.summary())),
    })?;
    report(&end, &progress, matches.get_flag("json"))?;
    let code = match (end.stopped, &end.interrupted) {
        (true, _) => STOPPED,
        (false, Some(why)) => {
            let told = terminal::printable(&format!("the server ended the stream early ({why})"));
            let _ = writeln!(std::io::stderr(), "pushlet: {told}");
            FAILED
        }
        (false, None) => return Ok(exit_code(&progress)),
    };
    let _ = writeln!(std::io::stderr(), "{}", progress::how_to_go_on(matches.contains_id("results")));
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
        return terminal::print_json(&shown);
    }
    match progress.skipped() {
        0 => {}
        1 => terminal::print_line("1 target had a result already")?,
        skipped => terminal::print_line(&format!("{skipped} targets had a result already"))?,
    }
    terminal::print_line(&progress.summary())?;
    end.examples.iter().try_for_each(|example| terminal::print_line(&format!("  {example}")))
}

/// Flag and name of the fields that are texts.
const TEXTS: [(&str, &str, &str); 5] = [
    ("title", "title", "The title"),
    ("subtitle", "subtitle", "The line below the title"),
    ("body", "body", "The text"),
    ("sound", "sound", "Name of a sound"),
    ("collapse-key", "collapse_key", "A later push with the same one takes its place"),
];
/// Those that are JSON.
const VALUES: [(&str, &str, &str); 3] = [
    ("badge", "badge", "The number on the application's icon"),
    ("data", "data", "An object for the application"),
    ("ttl", "ttl", "Seconds that the push service keeps it for a device that is off"),
];

pub fn notification_arguments() -> Vec<Arg> {
    let own = |flag, value, help| option(flag, value, help).help_heading("Notification");
    let texts = TEXTS.into_iter().map(|(flag, _, help)| own(flag, "TEXT", help));
    let values = VALUES.into_iter().map(|(flag, _, help)| own(flag, "JSON", help));
    let set = own("set", "NAME=VALUE", "Any other field, as the API and the provider name it");
    let file =
        own("notification", "FILE", "A file with a notification as the API takes it; flags win over it");
    let validate_only = Arg::new("validate-only")
        .long("validate-only")
        .action(ArgAction::SetTrue)
        .help("Check everything and send nothing");
    let deadline = option("deadline", "SECONDS", "For each target").value_parser(value_parser!(f64));
    let others =
        [set.action(ArgAction::Append), file.value_parser(value_parser!(PathBuf)), validate_only, deadline];
    texts.chain(values).chain(others).collect()
}

/// `{"application_id", "notification", …}`.
pub fn stream_header(matches: &ArgMatches) -> Result<Value, Problem> {
    let mut notification = match matches.get_one::<PathBuf>("notification") {
        Some(file) => read_notification(file)?,
        None => Map::new(),
    };
    for (flag, name, _) in TEXTS {
        if let Some(text) = matches.get_one::<String>(flag) {
            notification.insert(name.to_owned(), text.clone().into());
        }
    }
    for (flag, name, _) in VALUES {
        if let Some(text) = matches.get_one::<String>(flag) {
            let value = serde_json::from_str(text);
            let wrong = |error| Problem::new(format_args!("--{flag} {text}: it is not JSON: {error}"));
            let value: Value = value.map_err(wrong)?;
            notification.insert(name.to_owned(), value);
        }
    }
    // Last: --set wins over the other flags, and these win over the file.
    notification.extend(pairs(matches, "set")?);
    let mut header = json!({ "application_id": given(matches, "application"), "notification": notification });
    if matches.get_flag("validate-only") {
        header["validate_only"] = true.into();
    }
    if let Some(seconds) = matches.get_one::<f64>("deadline") {
        header["deadline"] = (*seconds).into();
    }
    Ok(header)
}

fn read_notification(file: &PathBuf) -> Result<Map<String, Value>, Problem> {
    let wrong = |why: &dyn std::fmt::Display| Problem::new(format_args!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}
