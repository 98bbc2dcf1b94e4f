//! The lines that name targets.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::results::Done;
use super::trimmed;
use crate::config::Problem;

pub struct Targets {
    input: Box<dyn BufRead + Send>,
    /// For errors: what is read, and up to which line.
    name: String,
    number: u64,
    /// Lines that have targets; None: it is not known before the end.
    total: Option<u64>,
    done: Done,
    skipped: Arc<AtomicU64>,
}

/// A target on its way.
pub struct Target {
    /// As it stood in the file.
    pub text: String,
    /// As a line of the stream, without its end.
    pub line: String,
}

impl Targets {
    /// `-`: standard input.
    pub fn open(path: &Path, done: Done) -> Result<Self, Problem> {
        if path == Path::new("-") {
            let input = Box::new(BufReader::new(std::io::stdin()));
            let name = "standard input".to_owned();
            return Ok(Self { input, name, number: 0, total: None, done, skipped: Arc::default() });
        }
        let wrong = |error| Problem::new(format_args!("{}: {error}", path.display()));
        let mut file = File::open(path).map_err(wrong)?;
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

    /// Targets in the file, if their number is known.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// How many had a final result already, so far.
    pub fn skipped(&self) -> Arc<AtomicU64> {
        self.skipped.clone()
    }

    /// The next one that has no final result yet.
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
            let text = trimmed(&line);
            if text.is_empty() {
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

impl Target {
    /// For the results: a token as a text, a JSON line as what it is.
    pub fn shown(text: &str) -> Value {
        let object = text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
        object.unwrap_or_else(|| text.into())
    }
}

/// Lines that are not blank; the file is at its beginning again afterwards.
fn count(file: &mut File) -> std::io::Result<u64> {
    let mut lines = 0;
    let mut input = BufReader::with_capacity(1 << 20, &mut *file);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        lines += u64::from(!line.trim_ascii().is_empty());
        line.clear();
    }
    file.rewind()?;
    Ok(lines)
}
