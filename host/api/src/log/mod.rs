//! The log: lines of text or JSON on standard error.
//!
//! Whatever callers, components or push services send may become part of a line, so [`fields`] and [`escape`] see to
//! it that a line stays one line and steers no terminal. No thread that logs ever waits for standard error: lines go
//! through [`queue`], which drops and counts what does not fit. Lines that would repeat without end are counted
//! by [`repeats`].

mod fields;
mod queue;
mod repeats;

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use pushlet_settings::{LogConfig, LogFormat, LogLevel};
use queue::Queue;

pub use queue::{Flush, dropped};

/// The target of lines about requests: there is one for each, however alike they are.
pub const REQUESTS: &str = "pushlet::requests";

/// Sets up the log of the whole process. Changes nothing if there is one already. What is returned writes what still
/// waits when it is dropped.
pub fn start(config: &LogConfig) -> Flush {
    // At their finer levels the HTTP libraries write headers, and with them passwords and keys.
    let targets = Targets::new().with_default(LevelFilter::WARN).with_target("pushlet", level(config.level));
    let queue = Queue::new(Arc::default(), config.format == LogFormat::Json);
    let lines = fmt::layer().with_writer(queue.clone()).with_target(false);
    let lines = match config.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            lines.fmt_fields(fields::Fields).with_ansi(std::io::stderr().is_terminal()).boxed()
        }
    };
    match tracing_subscriber::registry().with(lines.with_filter(targets)).try_init() {
        Ok(()) => queue.write_to(std::io::stderr()),
        Err(_) => Flush::default(),
    }
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
