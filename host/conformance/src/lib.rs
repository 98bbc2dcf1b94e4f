//! Does a provider component keep the contract? The answer for its author, offline: no server, no account, no network.
//!
//! [`check`] loads a component as a server would, and then calls it with everything that a server may give it some day:
//! every status, bodies of every kind, notifications with each field at its limits, texts of all of Unicode. Each rule
//! that the component breaks becomes a [`Finding`] that names the call, the input and what is wrong.
//!
//! - `subject`: the component under test, in a sandbox of its own
//! - `sample`: the manifest's examples as inputs of the calls
//! - `inputs`: what else a component is given: hostile texts, bodies, notifications
//! - `manifest`, `requests`, `answers`, `collections`: the rules, by what they look at; `connections`: those of byte streams
//! - `vectors`, `fuzzing`: tables of expected results, and random inputs
//! - [`call`]: single calls, shown to people
//! - `replay`: a recorded send, made again with another component
//! - `report`: what was found, as a table, JSON or JUnit

mod answers;
pub mod call;
mod collections;
mod connections;
mod fuzzing;
mod inputs;
mod manifest;
mod replay;
mod report;
mod requests;
mod sample;
mod subject;
mod vectors;

use std::path::PathBuf;
use std::time::Duration;

pub use replay::{Replay, replay};
pub use report::{Figures, Finding, Report, RuleReport, Severity};
pub use sample::{Sample, like, target};
pub use subject::Subject;

use pushlet_model::tenant::TenantId;
use pushlet_sandbox::{CodeFolder, LoadError, ProviderError};
use report::Rule;

/// What a check does beyond the rules that hold for every component.
#[derive(Default)]
pub struct CheckOptions {
    /// Names of the rules that are checked; empty: all. Those about loading and the examples always are.
    pub rules: Vec<String>,
    /// Settings that each example's application gets, over its own.
    pub settings: Vec<(String, String)>,
    /// A folder of golden vectors, with the folders `encode` and `decode`.
    pub vectors: Option<PathBuf>,
    /// For how long random inputs are tried.
    pub fuzz: Option<Duration>,
    /// The seed of the random inputs.
    pub seed: u64,
    /// Where compiled code is kept for other commands.
    pub code: Option<CodeFolder>,
}

/// Bytes of compiled code that are kept in a folder.
const MOST_CODE: usize = 1 << 30;

/// Returns a folder for compiled code, which a server with the same folder as its cache shares. `anew`: it is compiled in
/// any case, so that the time is that of a server.
pub fn code_folder(directory: PathBuf, anew: bool) -> CodeFolder {
    CodeFolder { directory, most: MOST_CODE, tenant: TenantId::default_tenant(), anew }
}

/// Rules that a component may break before it can be called: name, and the rule in a sentence.
const COMPONENT: (&str, &str) = ("component", "it loads: size, imports, world, version, types");
const MANIFEST: (&str, &str) = ("manifest", "the manifest is sound");
const BUDGETS: (&str, &str) = ("budgets", "time and memory of each call");

type CheckedRule = fn(&Subject, &[Sample]) -> RuleReport;

/// The rules that are checked by calling the component, by name.
const RULES: [(&str, CheckedRule); 11] = [
    ("deterministic", requests::same_every_time),
    ("targets", requests::number_of_targets),
    ("any-target", requests::any_target),
    ("any-setting", requests::any_setting),
    ("any-field", requests::any_notification),
    ("unicode", requests::all_of_unicode),
    ("answers", answers::any_status),
    ("any-header", answers::any_header),
    ("retry-after", answers::told_to_wait),
    ("many-answers", answers::many_answers),
    ("collections", collections::any_operation),
];

/// Those of the world `stream-provider`.
const STREAM_RULES: [(&str, CheckedRule); 4] = [
    ("deterministic", connections::same_every_time),
    ("any-submission", connections::any_submission),
    ("any-bytes", connections::any_bytes),
    ("any-end", connections::any_end),
];

/// Returns the names that [`CheckOptions::rules`] may have.
pub fn rule_names() -> impl Iterator<Item = &'static str> {
    let known = |name: &str| RULES.iter().any(|(known, _)| *known == name);
    let of_streams = STREAM_RULES.iter().map(|(name, _)| *name).filter(move |name| !known(name));
    RULES.iter().map(|(name, _)| *name).chain(of_streams)
}

/// Checks a component against every rule. May take long: not for an async thread.
pub fn check(component: &[u8], options: &CheckOptions) -> Report {
    let mut report = Report::of(component);
    let subject = match Subject::load(component, options.code.as_ref()) {
        Ok(subject) => subject,
        Err((error, printed)) => {
            report.add(refused(&error, printed));
            return report;
        }
    };
    report.name_of(subject.manifest());
    let (rule, about) = COMPONENT;
    report.add(Rule::new(rule, about).with_cases(1));
    report.add(manifest::sound(&subject));
    report.add(manifest::constant(&subject));
    let speaks_stream = subject.speaks_stream();
    let rules: &[(&str, CheckedRule)] = if speaks_stream { &STREAM_RULES } else { &RULES };
    let sends = if speaks_stream { connections::submits } else { sample::encodes };
    let (samples, rule) = sample::samples(&subject, &options.settings, sends);
    report.add(rule);
    let is_wanted = |name: &str| options.rules.is_empty() || options.rules.iter().any(|rule| rule == name);
    if !samples.is_empty() {
        for (_, rule) in rules.iter().filter(|(name, _)| is_wanted(name)) {
            report.add(rule(&subject, &samples));
        }
        if let Some(time) = options.fuzz {
            report.add(fuzzing::random(&subject, &samples, time, options.seed));
        }
    }
    if let Some(folder) = &options.vectors {
        report.add(vectors::run(&subject, folder));
    }
    report.add(subject.budgets());
    report.figures = Some(subject.figures());
    report
}

/// Returns the report of the rule that a refused component breaks.
fn refused(error: &LoadError, printed: Option<String>) -> RuleReport {
    let ((rule, about), call) = match error {
        LoadError::BadManifest(_) => (MANIFEST, "describe"),
        LoadError::Broken(ProviderError::TimedOut | ProviderError::OutOfMemory) => (BUDGETS, "describe"),
        LoadError::Broken(_) => (COMPONENT, "describe"),
        _ => (COMPONENT, "load"),
    };
    let mut rule = Rule::new(rule, about).with_cases(1);
    rule.error_of(call, error.code(), error.to_string(), printed);
    rule.done()
}
