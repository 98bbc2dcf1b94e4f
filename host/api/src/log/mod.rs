//! The log: lines of text or JSON on standard error.
//!
//! A line may contain what callers, components or push services sent, so [`TextFields`] and
//! [`text`](pushlet_model::text) keep each line one line, without the control characters of terminals. A thread
//! that logs never waits for standard error: lines go through [`queue`], which drops and counts what does not fit;
//! [`repeats`] sums up lines that are alike.

mod line;
mod queue;
mod repeats;

use std::error::Error;
use std::fmt::{self, Debug, Write as _};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tracing::field::{Field, Visit};
use tracing_subscriber::Layer as _;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self as format, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::telemetry::{LogRecords, Telemetry};
use pushlet_model::text::{Escaped, is_harmful};
use pushlet_settings::{LogConfig, LogFormat, LogLevel};
use queue::{Flush, LineQueue, event_time};

pub use line::{RequestLine, RequestNotes, SendRecord};
pub use queue::{dropped, write};
pub use repeats::AUDIT;

/// Sets up the log of the process, unless it has one. The returned value writes the lines that still wait when it is
/// dropped. `telemetry`: takes the lines too, if log records are exported.
pub fn start(config: &LogConfig, telemetry: Option<&Telemetry>) -> RunningLog {
    let (filter, handle) = reload::Layer::new(targets(config.level));
    let queue = LineQueue::new(Arc::default(), config.format == LogFormat::Json);
    let lines = format::layer().with_timer(EventTime).with_writer(queue.clone()).with_target(false);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.fmt_fields(TextFields).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let lines = match telemetry.and_then(|telemetry| telemetry.logs.clone()) {
        Some(queue) => lines.and_then(LogRecords { queue, event_time }).boxed(),
        None => lines,
    };
    match tracing_subscriber::registry().with(lines.with_filter(filter)).try_init() {
        Ok(()) => {
            let flush = queue.clone().write_to(std::io::stderr());
            queue.take_requests();
            let set_level = Box::new(move |level| drop(handle.reload(targets(level))));
            RunningLog { set_level: Some(set_level), flush }
        }
        Err(_) => RunningLog::default(),
    }
}

/// The log of the process. When it is dropped, it writes the lines that still wait.
#[derive(Default)]
pub struct RunningLog {
    set_level: Option<Box<dyn Fn(LogLevel) + Send + Sync>>,
    flush: Flush,
}

impl RunningLog {
    /// Changes which lines are written from now on.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(set) = &self.set_level {
            set(level);
        }
    }

    /// Waits until the lines of all requests that have ended are text, and records for the export; for a second at most.
    pub fn settle(&self) {
        self.flush.settle();
    }
}

/// Writes when the event was, which may have become text later.
struct EventTime;

impl FormatTime for EventTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", humantime::format_rfc3339_micros(event_time().max(UNIX_EPOCH)))
    }
}

fn targets(of: LogLevel) -> Targets {
    // At their finer levels the HTTP libraries write headers, and with them passwords and keys.
    Targets::new().with_default(LevelFilter::WARN).with_target("pushlet", level(of))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

const MESSAGE: &str = "message";

/// Writes `message name=value …`. A value that is more than one plain word is quoted, so that it cannot look like
/// another field.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let line = String::with_capacity(LINE);
        let mut line = FieldWriter { line, has_ansi: writer.has_ansi_escapes(), result: Ok(()) };
        fields.record(&mut line);
        line.result?;
        writer.write_str(&line.line)
    }
}

/// Bytes of the fields of most lines.
const LINE: usize = 384;

/// Collects the fields of a line. Piece by piece: each request's line has some ten values, and formatting machinery
/// costs as much as what it writes.
struct FieldWriter {
    line: String,
    has_ansi: bool,
    result: fmt::Result,
}

impl FieldWriter {
    /// Writes what stands before a value.
    fn begin(&mut self, field: &Field) -> &mut String {
        if !self.line.is_empty() {
            self.line.push(' ');
        }
        // The message may hold spaces: it comes first, so that it needs no quotes.
        if field.name() != MESSAGE {
            let (before, after) = match self.has_ansi {
                true => ("\u{1b}[3m", "\u{1b}[0m\u{1b}[2m=\u{1b}[0m"),
                false => ("", "="),
            };
            [before, field.name(), after].iter().for_each(|piece| self.line.push_str(piece));
        }
        &mut self.line
    }

    /// Writes a value, and in quotes, with escapes, what is not one plain word.
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let line = self.begin(field);
        let start = line.len();
        let written = if field.name() == MESSAGE {
            write!(line, "{}", Escaped(value))
        } else {
            line.write_fmt(value).and_then(|()| {
                if is_plain(&line[start..]) {
                    return Ok(());
                }
                let text = line.split_off(start);
                write!(line, "{:?}", Escaped(text))
            })
        };
        self.result = self.result.and(written);
    }
}

impl Visit for FieldWriter {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == MESSAGE;
        let line = self.begin(field);
        let written =
            if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
                // There is nothing to escape.
                let quote = if is_message { "" } else { "\"" };
                [quote, value, quote].iter().for_each(|piece| line.push_str(piece));
                Ok(())
            } else if is_message {
                write!(line, "{}", Escaped(value))
            } else {
                write!(line, "{:?}", Escaped(value))
            };
        self.result = self.result.and(written);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.begin(field).push_str(itoa::Buffer::new().format(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.begin(field).push_str(itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.begin(field).push_str(if value { "true" } else { "false" });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

fn is_plain(text: &str) -> bool {
    let odd = |letter: char| letter.is_whitespace() || letter == '"' || letter == '=' || is_harmful(letter);
    let is_plain_ascii = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'=';
    // Nearly all texts, and several times faster than to look at each as a character.
    !text.is_empty() && (text.bytes().all(is_plain_ascii) || !text.contains(odd))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged, without time and level.
    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(TextFields)
            .with_ansi(ansi)
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "x\n2026 ERROR forged \u{1b}[2J\u{9b}2K\u{202e} status=200";

    #[test]
    fn no_field_of_any_kind_breaks_a_line_or_steers_a_terminal() {
        let text = logged(false, || {
            tracing::error!(
                shown = %HOSTILE,
                debugged = ?HOSTILE,
                plain = HOSTILE,
                inner = ?std::ffi::OsStr::new(HOSTILE),
                error = &io::Error::other(HOSTILE) as &dyn Error,
                "message {HOSTILE}"
            );
        });
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_harmful), "{line:?}");
        assert_eq!(line.matches("forged").count(), 6, "{line}");
        // Within quotes only: what follows an even number of them is no field.
        let outside: String = line.replace("\\\"", "").split('"').step_by(2).skip(1).collect();
        assert!(!outside.contains("status"), "{outside}");
    }

    #[test]
    fn plain_values_stay_plain() {
        let text = logged(false, || {
            tracing::error!(ms = 7_u64, less = -7_i64, yes = true, text = "two words", id = %"a-1", none = None::<u64>, empty = %"", "done");
        });
        assert_eq!(text, "done ms=7 less=-7 yes=true text=\"two words\" id=a-1 empty=\"\"\n");
    }

    #[test]
    fn the_only_escapes_are_those_of_names() {
        let text = logged(true, || tracing::error!(a = %"\u{1b}[31m", "m"));
        assert_eq!(text, "m \u{1b}[3ma\u{1b}[0m\u{1b}[2m=\u{1b}[0m\"\\u{1b}[31m\"\n");
    }
}
