//! `pushlet provider new`, `check`, `call`, `replay` and `wit`: what authors of providers need, without a server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::templates;
use pushlet_conformance::{self as conformance, CheckOptions, Sample, Subject, call};
use pushlet_model::contract::codec::{Answer, Response};
use pushlet_model::contract::manifest::{Example, ProviderManifest, TargetKind};
use pushlet_model::contract::{self, Context, Environment, Recipient};
use pushlet_settings::Problem;

const CHECK_EXAMPLES: &str = "\
It loads the component as a server would and calls it with what a server may give it some day: every status, bodies of
every kind, each field of a notification at its limits, all of Unicode. Exit code 0: it keeps the contract; 1: it does
not, or it could not be read.

Examples:
  pushlet provider check acme.wasm
  pushlet provider check acme.wasm --vectors tests/vectors --fuzz 30 --junit check.xml";

const CALL_EXAMPLES: &str = "\
What is not given comes from the manifest's first example.

Examples:
  pushlet provider call describe acme.wasm
  pushlet provider call encode acme.wasm --notification '{\"title\":\"Hello\"}' --target 1f2e3d
  pushlet provider call decode acme.wasm --status 410 --body '{\"reason\":\"Unregistered\"}'";

const REPLAY_EXAMPLE: &str = "\
Exit code 0: the component does what was recorded; 1: it does something else, or the record cannot be read.

Example:
  pushlet provider replay record.json --with mended.wasm";

/// Returns true if the subcommand of `provider` needs no server.
pub fn is_offline(matches: &ArgMatches) -> bool {
    matches.subcommand_name().is_some_and(|name| matches!(name, "new" | "check" | "call" | "replay" | "wit"))
}

/// Returns the subcommands of `provider` that need no server.
pub fn commands() -> Vec<Command> {
    vec![templates::command(), check_command(), call_command(), replay_command(), wit_command()]
}

fn check_command() -> Command {
    Command::new("check")
        .about("Check offline whether a component keeps the contract")
        .arg(file())
        .arg(
            Arg::new("rule")
                .long("rule")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_parser(PossibleValuesParser::new(conformance::rule_names().collect::<Vec<_>>()))
                .help("Check this rule alone; may be repeated"),
        )
        .arg(setting().help("A setting of the applications, over those of the examples: NAME=VALUE"))
        .arg(
            path("vectors", "DIR")
                .help("Folder of golden vectors: encode/*.json and decode/*.json (tests/vectors/README.md)"),
        )
        .arg(number("fuzz", "SECONDS").help("Try random inputs for this long"))
        .arg(number("seed", "NUMBER").default_value("1").help("Seed of the random inputs"))
        .arg(path("junit", "FILE").help("Write the result as JUnit's XML"))
        .after_help(CHECK_EXAMPLES)
}

fn call_command() -> Command {
    let text = |name: &'static str, value| Arg::new(name).long(name).value_name(value);
    let function = Arg::new("function")
        .value_name("FUNCTION")
        .required(true)
        .value_parser(PossibleValuesParser::new(["describe", "encode", "decode"]))
        .help("What is called");
    Command::new("call")
        .about("Call a component offline, and print what it returns")
        .args([function, file()])
        .arg(number("example", "NUMBER").default_value("0").help("The manifest's example to begin with"))
        .arg(text("notification", "JSON").help("The notification, or @FILE"))
        .arg(
            text("target", "TEXT").action(ArgAction::Append).help(
                "A target, as TEXT or KIND:TEXT (device, topic, condition, channel, url); may be repeated",
            ),
        )
        .arg(setting().help("A setting of the application: NAME=VALUE; may be repeated"))
        .arg(text("credential", "NAME").help("The kind of credential that the application has"))
        .arg(
            text("environment", "NAME")
                .value_parser(PossibleValuesParser::new(["production", "development"]))
                .help("The application's environment"),
        )
        .arg(
            text("status", "NUMBER")
                .value_parser(value_parser!(u16))
                .default_value("200")
                .help("Status of the answer that is decoded"),
        )
        .arg(
            text("header", "NAME: VALUE")
                .action(ArgAction::Append)
                .help("A header of the answer; may be repeated"),
        )
        .arg(text("body", "TEXT").default_value("").help("Body of the answer, or @FILE"))
        .after_help(CALL_EXAMPLES)
}

fn replay_command() -> Command {
    Command::new("replay")
        .about("Make the calls of a recorded send again with a component, and print what differs")
        .arg(
            Arg::new("record")
                .value_name("RECORD")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("What POST /v1/notifications returned for a body with \"capture\": true"),
        )
        .arg(path("with", "FILE").required(true).help("A WebAssembly component"))
        .after_help(REPLAY_EXAMPLE)
}

fn wit_command() -> Command {
    Command::new("wit")
        .about("Print the contract between server and providers, provider.wit")
        .after_help("Example:\n  pushlet provider wit > wit/provider.wit")
}

fn file() -> Arg {
    Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("A WebAssembly component")
}

fn setting() -> Arg {
    Arg::new("setting").long("setting").value_name("NAME=VALUE").action(ArgAction::Append)
}

fn path(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf))
}

fn number(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(u64))
}

/// Runs the subcommand of `provider`.
pub fn run(matches: &ArgMatches) -> Result<ExitCode, Problem> {
    match matches.subcommand() {
        Some(("new", inner)) => {
            print(&templates::write(inner)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(("check", inner)) => check(inner),
        Some(("replay", inner)) => replay(inner),
        Some(("call", inner)) => {
            print(&called(inner)?)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            print(contract::WIT)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let component = read(matches.get_one::<PathBuf>("file").map_or(Path::new(""), PathBuf::as_path))?;
    let options = CheckOptions {
        rules: matches.get_many::<String>("rule").unwrap_or_default().cloned().collect(),
        settings: settings(matches)?,
        vectors: matches.get_one::<PathBuf>("vectors").cloned(),
        fuzz: matches.get_one::<u64>("fuzz").map(|seconds| Duration::from_secs(*seconds)),
        seed: matches.get_one::<u64>("seed").copied().unwrap_or_default(),
        // It is compiled in any case: the time is one of the figures.
        code: compiled_code().map(|directory| conformance::code_folder(directory, true)),
    };
    let report = conformance::check(&component, &options);
    if let Some(file) = matches.get_one::<PathBuf>("junit") {
        let wrong = |error| Problem::new(format_args!("{}: {error}", file.display()));
        std::fs::write(file, report.junit()).map_err(wrong)?;
    }
    let shown = if matches.get_flag("json") { format!("{:#}\n", report.json()) } else { report.table() };
    print(&shown)?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the folder of this user for what was compiled: `check`, `call`, `replay` and `dev` compile a component once. None:
/// the environment names no folder.
pub fn compiled_code() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("pushlet/components"))
}

/// Loads a component, and compiles it unless that was done before.
pub fn load(component: &[u8]) -> Result<Subject, Problem> {
    let folder = compiled_code().map(|directory| conformance::code_folder(directory, false));
    let subject = Subject::load(component, folder.as_ref());
    subject.map_err(|(error, printed)| failed("load", &error, printed))
}

fn replay(matches: &ArgMatches) -> Result<ExitCode, Problem> {
    let file = |name: &str| matches.get_one::<PathBuf>(name).map_or(Path::new(""), PathBuf::as_path);
    let record = read(file("record"))?;
    let wrong = |why: String| Problem::new(format_args!("{}: {why}", file("record").display()));
    let record = serde_json::from_slice(&record).map_err(|error| wrong(error.to_string()))?;
    let component = read(file("with"))?;
    let subject = load(&component)?;
    let replay = conformance::replay(&subject, &record).map_err(wrong)?;
    print(&replay.text)?;
    Ok(if replay.differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Calls the function that is named, and returns what it returned.
fn called(matches: &ArgMatches) -> Result<String, Problem> {
    let file = matches.get_one::<PathBuf>("file").map_or(Path::new(""), PathBuf::as_path);
    let component = read(file)?;
    let subject = load(&component)?;
    let manifest = subject.manifest();
    let function = matches.get_one::<String>("function").map_or("", String::as_str);
    if function == "describe" {
        // Debug escapes what is in texts.
        return Ok(format!("{manifest:#?}\n"));
    }
    let sample = sample(matches, manifest)?;
    let targets = targets(matches, &sample);
    let entropy = vec![7; manifest.entropy as usize * targets.len()];
    let context = Context::at(SystemTime::now(), entropy);
    let instances = subject.instances();
    let of = |error: pushlet_sandbox::ProviderError| failed(function, &error, instances.log().last_words());
    let checked = instances.check_application(&context, &sample.application);
    if let Err(rejection) = checked.map_err(of)? {
        return Err(Problem::new(format_args!("check-application refuses it: {}", rejection.message)));
    }
    let result = if function == "encode" {
        let requests = instances.encode(&context, &sample.application, &sample.notification, &targets);
        let requests = requests.map_err(of)?;
        if matches.get_flag("json") {
            let shown = call::encoded(manifest, &requests, targets.len(), &serde_json::Map::new());
            format!("{shown:#}\n")
        } else {
            call::requests(manifest, &sample.application, &requests)
        }
    } else {
        let targets = targets.into_iter().map(|recipient| recipient.target).collect();
        let answers = [Answer { targets, response: response(matches)? }];
        let replies = instances.decode(&context, &sample.application, &answers, true).map_err(of)?;
        let replies = replies.iter().flat_map(|reply| {
            let outcomes = reply.outcomes.iter().map(|outcome| format!("{:#}\n", call::outcome(outcome)));
            outcomes.chain(reply.native.iter().map(|native| format!("# native: {native}\n")))
        });
        replies.collect()
    };
    let printed = instances.log().text();
    let printed = printed.lines().map(|line| format!("# printed: {line}\n")).collect::<String>();
    Ok(printed + &result)
}

fn failed(call: &str, error: &dyn std::fmt::Display, printed: Option<String>) -> Problem {
    let printed = printed.map(|printed| format!("; before that it printed: {printed}")).unwrap_or_default();
    Problem::new(format_args!("{call}: {error}{printed}"))
}

/// Returns the manifest's example with what the command line gives over it.
fn sample(matches: &ArgMatches, manifest: &ProviderManifest) -> Result<Sample, Problem> {
    let number = matches.get_one::<u64>("example").copied().unwrap_or_default();
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let missing = || Problem::new(format_args!("the manifest has no example {number}"));
    let mut example: Example = manifest.examples.get(number).cloned().ok_or_else(missing)?;
    if let Some(notification) = matches.get_one::<String>("notification") {
        example.notification = text(notification)?;
    }
    let mut sample = Sample::of(manifest, number, &example)
        .map_err(|why| Problem::new(format_args!("the notification: {why}")))?;
    for (name, value) in settings(matches)? {
        sample.application.settings.retain(|(known, _)| *known != name);
        sample.application.settings.push((name, value));
    }
    if let Some(credential) = matches.get_one::<String>("credential") {
        sample.application.credential = Some(credential.clone());
    }
    match matches.get_one::<String>("environment").map(String::as_str) {
        Some("production") => sample.application.environment = Environment::Production,
        Some(_) => sample.application.environment = Environment::Development,
        None => {}
    }
    Ok(sample)
}

fn targets(matches: &ArgMatches, sample: &Sample) -> Vec<Recipient> {
    let of = |given: &String| {
        let kind = |name: &str| match name {
            "device" => Some(TargetKind::Device),
            "topic" => Some(TargetKind::Topic),
            "condition" => Some(TargetKind::Condition),
            "channel" => Some(TargetKind::Channel),
            "url" => Some(TargetKind::Url),
            _ => None,
        };
        let named = given.split_once(':').and_then(|(name, text)| Some((kind(name)?, text)));
        match named {
            Some((kind, text)) => {
                let target = conformance::target(kind, text.to_owned());
                Recipient { target, options: sample.target.options.clone() }
            }
            None => conformance::like(&sample.target, given.clone()),
        }
    };
    let given: Vec<Recipient> = matches.get_many::<String>("target").unwrap_or_default().map(of).collect();
    if given.is_empty() { vec![sample.target.clone()] } else { given }
}

fn response(matches: &ArgMatches) -> Result<Response, Problem> {
    let header = |given: &String| {
        let (name, value) = given
            .split_once(':')
            .ok_or_else(|| Problem::new(format_args!("--header {given}: expected NAME: VALUE")))?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = matches.get_many::<String>("header").unwrap_or_default().map(header);
    Ok(Response {
        status: matches.get_one::<u16>("status").copied().unwrap_or_default(),
        headers: headers.collect::<Result<_, Problem>>()?,
        body: text(matches.get_one::<String>("body").map_or("", String::as_str))?.into_bytes(),
    })
}

fn settings(matches: &ArgMatches) -> Result<Vec<(String, String)>, Problem> {
    let pair = |given: &String| {
        let (name, value) = given
            .split_once('=')
            .ok_or_else(|| Problem::new(format_args!("--setting {given}: expected NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    matches.get_many::<String>("setting").unwrap_or_default().map(pair).collect()
}

/// Returns a text as it is, or the content of the file after `@`.
fn text(given: &str) -> Result<String, Problem> {
    match given.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|error| Problem::new(format_args!("{file}: {error}")))
        }
        None => Ok(given.to_owned()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(file).map_err(|error| Problem::new(format_args!("{}: {error}", file.display())))
}

fn print(text: &str) -> Result<(), Problem> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Problem::new)
}
