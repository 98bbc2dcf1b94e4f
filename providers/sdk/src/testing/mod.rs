//! Golden vectors and manifest checks for a provider's native tests (feature `testing`).
//!
//! `tests/vectors/README.md` describes the files. Every `.json` file under `encode` and `decode` is run, and anything
//! else that lies there fails the test: a vector cannot be forgotten.

mod contract;
mod read;
mod render;

pub use contract::check_manifest;

use crate::codec_bindings::exports::pushlet::provider::codec::Guest;
use crate::{Answer, Context, Provider};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Runs every vector under `directory`, which is `tests/vectors/{provider}`.
///
/// # Panics
/// With the names of the cases that failed, what was expected and what came.
#[allow(clippy::panic)]
pub fn run_vectors<P: Provider>(directory: impl AsRef<Path>) {
    let mut failures = Vec::new();
    for (kind, run) in
        [("encode", encode_case::<P> as fn(&Case) -> Result<(), String>), ("decode", decode_case::<P>)]
    {
        for file in files(&directory.as_ref().join(kind)) {
            for case in cases(&file) {
                if let Err(problem) = run(&case) {
                    failures.push(format!("{}: {}\n{problem}", file.display(), case.name));
                }
            }
        }
    }
    let only: Vec<_> =
        entries(directory.as_ref()).iter().filter_map(|path| path.file_name()).map(PathBuf::from).collect();
    assert_eq!(
        only,
        [PathBuf::from("decode"), PathBuf::from("encode")],
        "what {:?} holds",
        directory.as_ref()
    );
    assert!(failures.is_empty(), "{} cases failed\n\n{}", failures.len(), failures.join("\n\n"));
}

/// One case, its table's defaults filled in.
struct Case {
    name: String,
    fields: Map<String, Value>,
}

impl Case {
    fn get(&self, field: &str) -> &Value {
        self.fields.get(field).unwrap_or(&Value::Null)
    }

    /// What is left once the inputs are taken: the expectation.
    fn expectation(&self, inputs: &[&str]) -> Map<String, Value> {
        self.fields
            .iter()
            .filter(|(key, _)| !inputs.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }
}

fn encode_case<P: Provider>(case: &Case) -> Result<(), String> {
    let manifest = <P as Provider>::describe();
    let application = read::application(case.get("application"));
    let targets = read::recipients(case.get("targets"));
    let notification = read::notification(case.get("notification"));
    contract::check_input(&manifest, &application, &notification)?;
    let entropy = (0..manifest.entropy * crate::reply::index(targets.len())).map(|byte| byte as u8).collect();
    let context = Context { now: read::now(case.get("now")), entropy };
    if let Err(rejection) = <P as Provider>::check_application(&application) {
        return Err(format!("the application is refused: {rejection:?}"));
    }
    let count = targets.len();
    let encoded = <P as Guest>::encode(context, application.clone(), notification, targets);
    contract::check_encoded(&manifest, &application, count, &encoded)?;
    let expected = case.expectation(&["application", "targets", "notification", "now"]);
    compare(Value::Object(expected.clone()), render::encoded(&encoded, count, &expected))
}

fn decode_case<P: Provider>(case: &Case) -> Result<(), String> {
    let recipients = read::recipients(case.get("targets"));
    let targets: Vec<_> = recipients.into_iter().map(|recipient| recipient.target).collect();
    let count = targets.len();
    let mut response = read::response(case.get("response"));
    // As a host does: what is not declared is not seen.
    let declared = <P as Provider>::describe().response_headers;
    response.headers.retain(|(name, _)| declared.iter().any(|known| known.eq_ignore_ascii_case(name)));
    let answer = Answer { targets, response };
    let context = Context { now: read::now(case.get("now")), entropy: Vec::new() };
    let application = read::application(case.get("application"));
    let wanted = case.fields.contains_key("native");
    let mut replies = <P as Guest>::decode(context, application, vec![answer], wanted);
    let (Some(reply), true) = (replies.pop(), replies.is_empty()) else { return Err("not one reply".into()) };
    if reply.outcomes.len() != count {
        return Err(format!("{} outcomes for {count} targets", reply.outcomes.len()));
    }
    let expected = case.expectation(&["application", "targets", "response", "now"]);
    compare(Value::Object(expected.clone()), render::reply(&reply, &expected))
}

fn compare(expected: Value, actual: Value) -> Result<(), String> {
    if expected == actual { Ok(()) } else { Err(format!("  expected {expected}\n  but got  {actual}")) }
}

#[allow(clippy::panic)]
fn files(directory: &Path) -> Vec<PathBuf> {
    let files = entries(directory);
    assert!(!files.is_empty(), "no vectors in {}", directory.display());
    for file in &files {
        assert!(file.extension().is_some_and(|kind| kind == "json"), "{} is not a vector", file.display());
    }
    files
}

#[allow(clippy::panic)]
fn entries(directory: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

#[allow(clippy::panic, clippy::expect_used)]
fn cases(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).expect("a readable vector file");
    let table: Map<String, Value> = match crate::json::parse(&text) {
        Ok(Value::Object(table)) => table,
        other => panic!("{}: {other:?}", file.display()),
    };
    let defaults = table.get("defaults").and_then(Value::as_object).cloned().unwrap_or_default();
    let cases = table.get("cases").and_then(Value::as_array).expect("a list of cases");
    assert!(!cases.is_empty() && table.contains_key("about"), "{} is empty or says nothing", file.display());
    let unknown = table.keys().find(|key| !["about", "defaults", "cases"].contains(&key.as_str()));
    assert_eq!(unknown, None, "{}", file.display());
    cases
        .iter()
        .map(|case| {
            let mut fields = defaults.clone();
            fields.extend(case.as_object().expect("a case is an object").clone());
            let name = fields.shift_remove("name").and_then(|name| Some(name.as_str()?.to_string()));
            Case { name: name.expect("a case has a name"), fields }
        })
        .collect()
}
