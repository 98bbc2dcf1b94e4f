//! The targets: the lines that name them, the key that identifies each, and those that were sent recently.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use pushlet_settings::Problem;

pub struct TargetReader {
    input: Box<dyn BufRead + Send>,
    /// For errors: what is read, and up to which line.
    name: String,
    number: u64,
    /// Lines that have targets; None: it is not known before the end.
    total: Option<u64>,
    done: FinishedTargets,
    skipped: Arc<AtomicU64>,
}

impl TargetReader {
    /// `-`: standard input.
    pub fn open(path: &Path, done: FinishedTargets) -> Result<Self, Problem> {
        if path == Path::new("-") {
            let input = Box::new(BufReader::new(std::io::stdin()));
            let name = "standard input".to_owned();
            return Ok(Self { input, name, number: 0, total: None, done, skipped: Arc::default() });
        }
        let wrong = |error| Problem::new(format_args!("{}: {error}", path.display()));
        let mut file = File::open(path).map_err(wrong)?;
        // A pipe could not be read again from its beginning.
        let total = if file.metadata().map_err(wrong)?.is_file() {
            Some(count(&mut file).map_err(wrong)?)
        } else {
            None
        };
        Ok(Self {
            input: Box::new(BufReader::with_capacity(1 << 20, file)),
            name: path.display().to_string(),
            number: 0,
            total,
            done,
            skipped: Arc::default(),
        })
    }

    /// Creates a reader of the targets of the command line. They are quoted, so that `#` does not begin a comment.
    pub fn given(tokens: Vec<String>, done: FinishedTargets) -> Self {
        let total = Some(tokens.len() as u64);
        let lines = tokens.into_iter().map(|token| match Target::shown(&token) {
            Value::String(token) => json!(token).to_string() + "\n",
            object => object.to_string() + "\n",
        });
        let input = Box::new(Cursor::new(lines.collect::<String>()));
        Self { input, name: "--to".to_owned(), number: 0, total, done, skipped: Arc::default() }
    }

    /// Returns the number of targets in the file, if it is known.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns how many had a final result already, so far.
    pub fn skipped(&self) -> Arc<AtomicU64> {
        self.skipped.clone()
    }

    /// Returns the next target that has no final result yet.
    pub fn next(&mut self) -> Result<Option<Target>, Problem> {
        let mut line = String::new();
        loop {
            line.clear();
            self.number += 1;
            let read = self.input.read_line(&mut line);
            let wrong = |error| Problem::new(format_args!("{}, line {}: {error}", self.name, self.number));
            if read.map_err(wrong)? == 0 {
                return Ok(None);
            }
            let line = trimmed(&line);
            let text = &*unquoted(line);
            if text.is_empty() || is_comment(line.as_bytes()) {
                continue;
            }
            if self.done.contains(text) {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let line =
                if text.starts_with('{') { text.to_owned() } else { json!({ "target": text }).to_string() };
            return Ok(Some(Target { text: text.to_owned(), line }));
        }
    }
}

/// No token begins so.
fn is_comment(line: &[u8]) -> bool {
    line.starts_with(b"#")
}

/// Removes the quotes in which spreadsheets and JSON tools write a token.
fn unquoted(text: &str) -> Cow<'_, str> {
    let within = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    match serde_json::from_str::<String>(text) {
        Ok(token) if !token.contains(char::is_control) => trimmed(&token).to_owned().into(),
        _ => within('"').or_else(|| within('\'')).map_or(text, trimmed).into(),
    }
}

/// Lines that are not blank, and no comments; the file is at its beginning again afterwards.
fn count(file: &mut File) -> std::io::Result<u64> {
    let mut lines = 0;
    let mut input = BufReader::with_capacity(1 << 20, &mut *file);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let text = line.trim_ascii();
        lines += u64::from(!text.is_empty() && !is_comment(text));
        line.clear();
    }
    file.rewind()?;
    Ok(lines)
}

/// A target on its way.
pub struct Target {
    /// As it stood in the file.
    pub text: String,
    /// As a line of the stream, without its end.
    pub line: String,
}

impl Target {
    /// For the results: a token as a text, a JSON line as what it is.
    pub fn shown(text: &str) -> Value {
        let object = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
        object.unwrap_or_else(|| text.into())
    }
}

/// Identifies a target: the beginning of a digest.
pub type TargetKey = [u8; 16];

/// Targets that have a final result: 16 bytes for each, whatever its length.
#[derive(Default)]
pub struct FinishedTargets(HashSet<TargetKey>);

impl FinishedTargets {
    pub fn insert(&mut self, target: &str) {
        self.0.insert(key(target));
    }

    pub fn contains(&self, target: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&key(target))
    }
}

/// Returns the key of a target. White space in a JSON line does not count.
pub fn key(target: &str) -> TargetKey {
    let text = trimmed(target);
    let plain = match Target::shown(text) {
        Value::String(_) => text.to_owned(),
        object => object.to_string(),
    };
    let mut key = [0; 16];
    key.copy_from_slice(&digest(&SHA256, plain.as_bytes()).as_ref()[..16]);
    key
}

/// Strips white space and byte order marks around a line.
pub fn trimmed(line: &str) -> &str {
    line.trim_matches(|letter: char| letter.is_ascii_whitespace() || letter == '\u{feff}')
}

/// Lines that are remembered: as many different targets as the server compares with.
const MOST: usize = 229_376;

#[derive(Default)]
pub struct RecentTargets {
    keys: VecDeque<TargetKey>,
    /// The number of the next line.
    next: u64,
}

impl RecentTargets {
    pub fn push(&mut self, target: &str) {
        if self.keys.len() == MOST {
            self.keys.pop_front();
        }
        self.keys.push_back(key(target));
        self.next += 1;
    }

    /// Returns true if the line of this number has another text; false if it is too long ago.
    pub fn differs(&self, line: u64, target: &str) -> bool {
        let first = self.next - self.keys.len() as u64;
        let place = line.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.keys.get(place)).is_some_and(|earlier| *earlier != key(target))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_left_out_and_quotes_are_taken_off() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "# tokens of today\n\u{feff}one\n\n  \"two\" \n'three'\r\n #four\n\
                     {\"target\":{\"topic\":\"a\"}}\n\"\"\n\"s\\u0069x\"";
        std::fs::write(file.path(), lines).unwrap();
        let mut targets = TargetReader::open(file.path(), FinishedTargets::default()).unwrap();
        let mut texts = Vec::new();
        while let Some(target) = targets.next().unwrap() {
            assert!(
                serde_json::from_str::<Value>(&target.line).unwrap()["target"].is_string()
                    || target.text.starts_with('{')
            );
            texts.push(target.text);
        }
        assert_eq!(texts, ["one", "two", "three", "{\"target\":{\"topic\":\"a\"}}", "six"]);

        let given = ["a", "#b", "c\"d", "{\"target\":{\"topic\":\"e\"}}"].map(str::to_owned);
        let mut given = TargetReader::given(given.into(), FinishedTargets::default());
        assert_eq!(given.total(), Some(4));
        let mut lines = std::iter::from_fn(|| given.next().unwrap().map(|target| target.line));
        let quoted = r#"{"target":"c\"d"}"#;
        let expected = [r#"{"target":"a"}"#, r##"{"target":"#b"}"##, quoted, r#"{"target":{"topic":"e"}}"#];
        assert_eq!(lines.by_ref().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_are_remembered_for_a_while() {
        let mut earlier = RecentTargets::default();
        (0..MOST + 2).for_each(|number| earlier.push(&number.to_string()));
        assert!(earlier.differs(2, "x") && !earlier.differs(2, "2") && !earlier.differs(2, " 2 "));
        assert!(!earlier.differs(1, "x"), "it is forgotten");
        assert!(!earlier.differs(MOST as u64 + 2, "x"), "it was never sent");
    }
}
