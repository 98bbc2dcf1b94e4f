//! All routes of the API, as its source has them: what a test over every route must not forget.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// Method and path of each.
pub fn all() -> BTreeSet<(String, String)> {
    let found: BTreeSet<_> = sources().iter().flat_map(|source| of(source)).collect();
    assert!(found.len() > 25, "the source is written in another way: {found:?}");
    found
}

/// The program's own, without those of its tests.
fn sources() -> Vec<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/api/src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_string_lossy().contains("test") {
                sources.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

fn of(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices(".route(") {
        let call = argument(&source[at + ".route(".len()..]);
        let path = call.split('"').nth(1).unwrap();
        for method in METHODS {
            let (first, chained) = (format!(" {method}("), format!(".{method}("));
            if call.replace('\n', " ").contains(&first) || call.contains(&chained) {
                found.push((method.to_uppercase(), path.to_owned()));
            }
        }
    }
    found
}

/// To the parenthesis that closes.
fn argument(text: &str) -> &str {
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 1 => return &text[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}

#[test]
fn they_are_found_in_the_source() {
    let source = r#".route("/a", get(x)).route(
        "/b/{id}",
        get(y::z).put(p).layer(once(&k)),
    )"#;
    let expected = [("GET", "/a"), ("GET", "/b/{id}"), ("PUT", "/b/{id}")];
    assert_eq!(of(source), expected.map(|(method, path)| (method.to_owned(), path.to_owned())));
    assert!(all().contains(&("POST".to_owned(), "/v1/notifications:stream".to_owned())));
}
