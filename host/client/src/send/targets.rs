//! The targets: the lines that name them, the key that identifies each, those that were sent recently, and their results.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Cursor, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

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

/// Results after which another try makes no sense, or might be a second push.
const FINAL: [&str; 5] = ["delivered", "unregistered", "replaced", "rejected", "unknown"];

/// The field of a result that says what was sent: the beginning of a digest.
const WHAT: &str = "notification_digest";

/// The field of a duplicate whose target is an earlier one, written otherwise. Its text is in no other line, so it is
/// done; one in the same spelling has the fate of the first.
pub const OTHER_SPELLING: &str = "other_spelling";

/// Where results go.
pub struct ResultsFile {
    file: Option<BufWriter<File>>,
    done: FinishedTargets,
    /// What is sent: it stands in each line, so that another run knows whether it sends the same.
    what: String,
}

impl ResultsFile {
    /// Opens the file; None: results are not written. A file that is not empty is only written to in order to
    /// `resume`. `header`: application and notification, which must be those of the file then.
    pub fn open(path: Option<&Path>, resume: bool, header: &Value) -> Result<Self, Problem> {
        let same = json!([header["application_id"], header["notification"]]).to_string();
        let what = hex::encode(&digest(&SHA256, same.as_bytes()).as_ref()[..8]);
        let Some(path) = path else { return Ok(Self { file: None, done: FinishedTargets::default(), what }) };
        let wrong = |error: std::io::Error| Problem::new(format_args!("{}: {error}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(wrong)?;
        // One that is empty is what a send left that the server refused.
        if !resume && file.metadata().map_err(wrong)?.len() > 0 {
            let path = path.display();
            return Err(Problem::new(format_args!("{path} is there already: --resume goes on with it")));
        }
        let done = match resume.then(|| read(&mut file, &what)).transpose().map_err(wrong)? {
            Some(None) => {
                return Err(Problem::new(format_args!(
                    "{} holds results of another application or notification: --resume goes on with the same ones only",
                    path.display()
                )));
            }
            Some(Some(done)) => done,
            None => FinishedTargets::default(),
        };
        Ok(Self { file: Some(BufWriter::with_capacity(256 << 10, file)), done, what })
    }

    pub fn take_done(&mut self) -> FinishedTargets {
        std::mem::take(&mut self.done)
    }

    /// `result`: as the stream had it; its numbers of lines mean nothing to others.
    pub fn write(&mut self, target: &str, result: &Map<String, Value>) -> Result<(), Problem> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = Map::new();
        line.insert("target".to_owned(), Target::shown(target));
        line.extend(
            result
                .iter()
                .filter(|(name, _)| *name != "index" && *name != "duplicate_of")
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        line.insert(WHAT.to_owned(), self.what.as_str().into());
        writeln!(file, "{}", Value::Object(line)).map_err(not_written)
    }

    pub fn flush(&mut self) -> Result<(), Problem> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush().map_err(not_written))
    }
}

fn not_written(error: std::io::Error) -> Problem {
    Problem::new(format_args!("the results cannot be written: {error}"))
}

/// Reads the finished targets; None: the file is of another notification. A last line that was cut off is closed, so
/// that the next one is whole.
fn read(file: &mut File, what: &str) -> std::io::Result<Option<FinishedTargets>> {
    let mut done = FinishedTargets::default();
    let mut input = BufReader::with_capacity(1 << 20, &mut *file);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let result = serde_json::from_slice::<Value>(&line).unwrap_or_default();
        if result[WHAT].as_str().is_some_and(|other| other != what) {
            return Ok(None);
        }
        let is_final = result["status"].as_str().is_some_and(|status| FINAL.contains(&status));
        if is_final || result[OTHER_SPELLING] == true {
            match &result["target"] {
                Value::String(text) => done.insert(text),
                other => done.insert(&other.to_string()),
            }
        }
        line.clear();
    }
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(Some(done))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod results_tests {
    use tempfile::NamedTempFile;

    use super::*;

    #[test]
    fn only_final_results_are_done_and_a_cut_off_line_is_closed() {
        let lines = "{\"target\":\"a\",\"status\":\"delivered\"}\n{\"target\":\"b\",\"status\":\"throttled\"}\n\
                     {\"target\":{\"target\":{\"topic\":\"c\"}},\"status\":\"rejected\"}\n{\"target\":\"e\",\"status\":\"duplicate\"}\n\
                     {\"target\":\"E\",\"status\":\"duplicate\",\"other_spelling\":true}\n{\"target\":\"d\",\"stat";
        let file = NamedTempFile::new().unwrap();
        let path = file.path();
        std::fs::write(path, lines).unwrap();
        let done = ResultsFile::open(Some(path), true, &Value::Null).unwrap().take_done();
        assert!(done.contains("a") && done.contains(" a ") && !done.contains("b") && !done.contains("d"));
        assert!(!done.contains("e") && done.contains("E"));
        assert!(done.contains("{ \"target\": {\"topic\": \"c\"} }"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{lines}\n"));
        assert!(ResultsFile::open(Some(path), false, &Value::Null).is_err());
        std::fs::write(path, "").unwrap();
        assert!(ResultsFile::open(Some(path), false, &Value::Null).is_ok());
    }

    #[test]
    fn only_the_same_notification_goes_on() {
        let file = NamedTempFile::new().unwrap();
        let path = file.path();
        let header =
            |body: &str| serde_json::json!({ "application_id": "shop", "notification": { "body": body } });
        let mut results = ResultsFile::open(Some(path), false, &header("Hello")).unwrap();
        let result = serde_json::json!({ "index": 0, "status": "delivered" });
        results.write("a", result.as_object().unwrap()).unwrap();
        results.flush().unwrap();
        let mut again = ResultsFile::open(Some(path), true, &header("Hello")).unwrap();
        assert!(again.take_done().contains("a"));
        let told = ResultsFile::open(Some(path), true, &header("Hallo")).err().unwrap().to_string();
        assert!(told.contains("another application or notification"), "{told}");
    }
}
