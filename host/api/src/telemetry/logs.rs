//! Log records: the lines of the log, whose fields have the same names as there.

use std::error::Error;
use std::fmt::Debug;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::export::{ExportQueue, Exported, attribute, nanoseconds, scope};

/// Bytes of one text; the rest is left out.
const LONGEST_TEXT: usize = 1024;
/// Bytes of all texts of one record, since thousands of records may wait.
const LARGEST_RECORD: usize = 4096;

/// Makes a record of each line of the log.
pub struct LogRecords {
    pub queue: ExportQueue<LogRecord>,
    /// Returns the time of the event that is being logged.
    pub event_time: fn() -> SystemTime,
}

impl<S: Subscriber> Layer<S> for LogRecords {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let time = nanoseconds((self.event_time)());
        let record = LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: time,
            severity_number: severity(level).into(),
            severity_text: level.to_string(),
            ..LogRecord::default()
        };
        let mut fields = Fields { record, room: LARGEST_RECORD };
        event.record(&mut fields);
        self.queue.push(fields.record);
    }
}

fn severity(level: Level) -> SeverityNumber {
    match level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    }
}

/// Puts the fields of a line into a record.
struct Fields {
    record: LogRecord,
    /// Bytes of text that the record may still take.
    room: usize,
}

impl Fields {
    fn add_text(&mut self, name: &str, text: &str) {
        let end = text.floor_char_boundary(LONGEST_TEXT.min(self.room));
        self.room -= end;
        let value = Value::StringValue(text[..end].to_owned());
        match name {
            "message" => self.record.body = Some(AnyValue { value: Some(value) }),
            // A field of its own in a record: it joins the record to its span.
            "trace_id" => self.record.trace_id = trace_id(text).unwrap_or_default(),
            _ => self.add(name, value),
        }
    }

    fn add(&mut self, name: &str, value: Value) {
        self.record.attributes.push(attribute(name, value));
    }
}

fn trace_id(text: &str) -> Option<Vec<u8>> {
    u128::from_str_radix(text, 16).ok().map(|id| id.to_be_bytes().into())
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // OTLP has no unsigned numbers.
        self.add(field.name(), Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), Value::BoolValue(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add_text(field.name(), &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_text(field.name(), &format!("{value:?}"));
    }
}

impl Exported for LogRecord {
    const PATH: &'static str = "v1/logs";
    const NAME: &'static str = "log records";

    fn request(resource: Resource, items: &mut Vec<Self>) -> Vec<u8> {
        let log_records = std::mem::take(items);
        let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }];
        let all = ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![all] }.encode_to_vec()
    }

    fn rejected(response: &[u8]) -> u64 {
        let partial = ExportLogsServiceResponse::decode(response).ok().and_then(|all| all.partial_success);
        partial.map_or(0, |partial| u64::try_from(partial.rejected_log_records).unwrap_or(0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_line_becomes_a_record() {
        let (queue, mut waiting) = ExportQueue::new();
        let long = "ä".repeat(LONGEST_TEXT);
        let records = LogRecords { queue, event_time: || SystemTime::UNIX_EPOCH + Duration::from_nanos(7) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(records), || {
            let trace_id = tracing::field::display("4bf92f3577b34da6a3ce929d0e0e4736");
            tracing::warn!(status = 503_u16, application = "shop", trace_id, left_out = None::<u64>, "send");
            tracing::info!(a = %long, b = %long, c = %long, d = %long, e = %long, "long");
        });
        let record = waiting.try_recv().unwrap();
        assert_eq!(record.body.unwrap().value, Some(Value::StringValue("send".to_owned())));
        assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (7, 7));
        assert_eq!(record.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        let application = Value::StringValue("shop".to_owned());
        let fields = [attribute("status", Value::IntValue(503)), attribute("application", application)];
        assert_eq!(record.attributes, fields);
        let long = waiting.try_recv().unwrap();
        let texts =
            long.attributes.iter().filter_map(|field| match field.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some(text.len()),
                _ => None,
            });
        let texts: Vec<_> = texts.collect();
        assert_eq!(texts[..3], [LONGEST_TEXT; 3]);
        // The message has come first.
        assert_eq!(texts.iter().sum::<usize>(), LARGEST_RECORD - "long".len());
    }
}
