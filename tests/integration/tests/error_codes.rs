//! Every error code that the host can answer stands in `host/docs/api.md` and in the OpenAPI document.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Pushlet, expect};

/// The error that it stands for is answered with the code of its cause.
const NEVER_ANSWERED: &str = "no_room_for_code";

fn host() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host")
}

/// The host's sources, without their tests.
fn sources() -> Vec<String> {
    let (mut folders, mut sources) = (vec![host()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.file_name().unwrap().to_string_lossy().contains("test");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if !is_test && path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(path).unwrap();
                sources.push(source.split("#[cfg(test)]").next().unwrap().to_owned());
            }
        }
    }
    sources
}

/// What stands behind each occurrence of a text that is no part of a longer name.
fn behind<'a>(source: &'a str, place: &'a str) -> impl Iterator<Item = &'a str> {
    let is_whole = |at: &usize| !source[..*at].ends_with(|letter: char| letter.is_alphanumeric());
    source.match_indices(place).map(|(at, _)| at).filter(is_whole).map(move |at| &source[at + place.len()..])
}

/// The text that a source begins with, if it can be a code.
fn literal(source: &str) -> Option<&str> {
    let text = source.trim_start().strip_prefix('"')?.split('"').next()?;
    let is_code = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    (!text.is_empty() && text.chars().all(is_code)).then_some(text)
}

/// The text behind the name of a variant: `Gone, "unregistered"`.
fn of_variant<'a>(source: &'a str, kinds: &[&str]) -> Option<&'a str> {
    let (variant, rest) = source.split_once(',')?;
    let is_status = variant.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    (is_status || kinds.contains(&variant)).then(|| literal(rest)).flatten()
}

/// The codes in one source, by the ways in which errors are made.
fn codes(source: &str, kinds: &[&str]) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for place in ["Kind::", "StatusCode::"] {
        codes.extend(behind(source, place).filter_map(|rest| of_variant(rest, kinds)).map(str::to_owned));
    }
    // One of these goes with any field's name.
    let is_field = |code: &&str| code.starts_with("invalid_") || code.starts_with("missing_");
    let fields = behind(source, "Error::field(").filter_map(literal);
    codes.extend(fields.filter(|code| !is_field(code)).map(str::to_owned));
    for place in ["const CODE: &str =", "refuse("] {
        codes.extend(behind(source, place).filter_map(literal).map(str::to_owned));
    }
    for call in behind(source, "over_limit(").filter_map(|rest| rest.split(')').next()) {
        codes.extend(call.split('"').nth(1).map(|limit| format!("limit_{limit}")));
    }
    // Code and message of one of several cases.
    let cases = behind(source, "=> (").filter(|rest| rest.split('"').nth(2) == Some(", "));
    codes.extend(cases.filter_map(literal).map(str::to_owned));
    for function in behind(source, "fn code(&self)").filter_map(|rest| rest.split("\n    }").next()) {
        codes.extend(behind(function, "=> ").filter_map(literal).map(str::to_owned));
    }
    codes
}

fn all() -> BTreeSet<String> {
    let error = fs::read_to_string(host().join("model/src/error.rs")).unwrap();
    let kinds = error.split_once("pub enum Kind {").unwrap().1.split_once('}').unwrap().0;
    let kinds: Vec<_> = kinds.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    let mut all: BTreeSet<_> = sources().iter().flat_map(|source| codes(source, &kinds)).collect();
    assert!(all.remove(NEVER_ANSWERED));
    assert!(all.len() > 90, "the source is written in another way: {all:?}");
    all
}

fn missing(document: &str) -> Vec<String> {
    all().into_iter().filter(|code| !document.contains(&format!("`{code}`"))).collect()
}

#[test]
fn they_are_found_in_the_source() {
    let source = r#"
        Error::new(Kind::Gone, "one", x); TargetKind::Gone, "no"; Kind::Other, "no";
        Error::field("two", y); Error::field("invalid_name", z); with_status(
            StatusCode::NOT_FOUND,
            "three",
        ); const CODE: &str = "four"; a.refuse("five", m); b.over_limit(t, "six", m); match c {
            D => ("seven", "message"), E => ("no", f),
        }
    fn code(&self) -> &str {
        match self { G => "eight", H(_) => "nine" }
    }
    fn other() { I => "no" }"#;
    let expected = ["eight", "five", "four", "limit_six", "nine", "one", "seven", "three", "two"];
    assert_eq!(codes(source, &["Gone"]).into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn each_is_in_the_description_of_the_api() {
    let document = fs::read_to_string(host().join("docs/api.md")).unwrap();
    assert_eq!(missing(&document), [""; 0]);
}

#[tokio::test]
async fn each_is_in_the_openapi_document() {
    let server = Pushlet::start("listen = \"127.0.0.1:0\"").await;
    let document: Value = expect(server.get("/openapi.json"), 200).await;
    // Of a path or method that is not there, no route's document can tell.
    assert_eq!(missing(&document.to_string()), ["method_not_allowed"]);
}
