//! Metrics: what `/metrics` shows, translated from the OpenMetrics text format to OTLP's data model by the rules of
//! opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics, "Prometheus Metric points to OTLP".
//!
//! From the text, since prometheus-client lets only its own encoders see the values.

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use prost::Message as _;
use tokio::time::MissedTickBehavior;

use super::export::{Collector, FailureLog, attribute, nanoseconds, scope};

/// Exports what `metrics` returns: at each interval, and a last time at the end.
pub async fn export(
    collector: Collector,
    interval: Duration,
    metrics: impl Fn() -> Option<Vec<Metric>> + Send,
) {
    let mut failures = FailureLog::default();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !collector.stop.is_requested() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = collector.stop.requested() => {}
        }
        let Some(metrics) = metrics() else { continue };
        let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
        let resource = Some(collector.resource.clone());
        let all = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec();
        if let Err(why) = collector.send("v1/metrics", request).await {
            failures.log("metrics", &why);
        }
    }
}

/// Translates a text of the OpenMetrics format. What counts, counts since `start`.
pub fn converted(text: &str, start: SystemTime, now: SystemTime) -> Vec<Metric> {
    let times = Times { start: nanoseconds(start), now: nanoseconds(now) };
    let mut families: Vec<Family> = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            families.push(Family::new(name, help, kind));
        } else if let (Some(family), Some(sample)) = (families.last_mut(), Sample::parse(line)) {
            family.add(sample, times);
        }
    }
    families.into_iter().filter_map(Family::into_metric).collect()
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

/// One line of the text.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<KeyValue>,
    /// The bound of a bucket.
    bound: Option<f64>,
    value: &'a str,
}

impl<'a> Sample<'a> {
    /// Returns None for a comment.
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' ']).filter(|_| !line.starts_with('#'))?;
        let mut sample = Self { name: &line[..end], labels: Vec::new(), bound: None, value: "" };
        let mut rest = &line[end..];
        if let Some(labels) = rest.strip_prefix('{') {
            rest = labels;
            while !rest.starts_with('}') {
                let (name, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
                let (value, after) = unquoted(quoted)?;
                match name {
                    "le" => sample.bound = Some(value.parse().ok()?),
                    _ => sample.labels.push(attribute(name, Value::StringValue(value))),
                }
                rest = after;
            }
            rest = &rest[1..];
        }
        sample.value = rest.split_whitespace().next()?;
        Some(sample)
    }

    fn number(&self) -> Option<Number> {
        let integer = self.value.parse().map(Number::AsInt).ok();
        integer.or_else(|| self.value.parse().map(Number::AsDouble).ok())
    }
}

/// Reads a label's value up to its closing quote, and returns what follows that.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    loop {
        match letters.next()? {
            (at, '"') => return Some((value, &quoted[at + 1..])),
            (_, '\\') => value.push(match letters.next()?.1 {
                'n' => '\n',
                letter => letter,
            }),
            (_, letter) => value.push(letter),
        }
    }
}

/// A metric with all its series.
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    numbers: Vec<NumberDataPoint>,
    histograms: Vec<HistogramDataPoint>,
}

impl<'a> Family<'a> {
    fn new(name: &'a str, help: &'a str, kind: &'a str) -> Self {
        Self { name, help, kind, numbers: Vec::new(), histograms: Vec::new() }
    }

    fn add(&mut self, sample: Sample<'_>, times: Times) {
        let Some(suffix) = sample.name.strip_prefix(self.name) else { return };
        match (self.kind, suffix) {
            ("counter", "_total") | ("gauge", "") => {
                let start_time_unix_nano = if self.kind == "counter" { times.start } else { 0 };
                self.numbers.push(NumberDataPoint {
                    value: sample.number(),
                    attributes: sample.labels,
                    start_time_unix_nano,
                    time_unix_nano: times.now,
                    ..NumberDataPoint::default()
                });
            }
            ("histogram", "_sum") => self.histogram(sample.labels, times).sum = sample.value.parse().ok(),
            ("histogram", "_count") => {
                self.histogram(sample.labels, times).count = sample.value.parse().unwrap_or_default();
            }
            ("histogram", "_bucket") => {
                let (bound, count) = (sample.bound, sample.value.parse().unwrap_or_default());
                let point = self.histogram(sample.labels, times);
                // The text has sums of all buckets so far, OTLP each bucket's own count.
                let before = point.bucket_counts.iter().sum::<u64>();
                point.bucket_counts.push(count - before.min(count));
                point.explicit_bounds.extend(bound.filter(|bound| bound.is_finite()));
            }
            _ => {}
        }
    }

    /// Returns the point of these labels. Lines of one series follow each other.
    fn histogram(&mut self, labels: Vec<KeyValue>, times: Times) -> &mut HistogramDataPoint {
        let is_new = self.histograms.last().is_none_or(|last| last.attributes != labels);
        if is_new {
            self.histograms.push(HistogramDataPoint {
                attributes: labels,
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            });
        }
        let last = self.histograms.len() - 1;
        &mut self.histograms[last]
    }

    /// Returns None if there are no series.
    fn into_metric(self) -> Option<Metric> {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let data = match self.kind {
            _ if self.numbers.is_empty() && self.histograms.is_empty() => return None,
            "counter" => {
                Data::Sum(Sum { data_points: self.numbers, aggregation_temporality, is_monotonic: true })
            }
            "histogram" => {
                Data::Histogram(Histogram { data_points: self.histograms, aggregation_temporality })
            }
            _ => Data::Gauge(Gauge { data_points: self.numbers }),
        };
        let unit = match self.name {
            name if name.ends_with("_seconds") => "s",
            name if name.ends_with("_bytes") => "By",
            _ => "",
        };
        Some(Metric {
            name: self.name.to_owned(),
            description: self.help.to_owned(),
            unit: unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family as Series;
    use prometheus_client::metrics::gauge::Gauge as GaugeMetric;
    use prometheus_client::metrics::histogram::Histogram as HistogramMetric;
    use prometheus_client::registry::Registry;

    use super::*;

    const ODD: &str = "a \"quoted\", {odd}\\ and = two\nlines";

    #[test]
    fn each_kind_keeps_its_values() {
        let mut registry = Registry::with_prefix("pushlet");
        let sends = Series::<Vec<(&str, String)>, Counter>::default();
        registry.register("sends", "Sends, by outcome", sends.clone());
        sends.get_or_create(&vec![("outcome", ODD.to_owned()), ("x", String::new())]).inc_by(7);
        let free = GaugeMetric::<f64, std::sync::atomic::AtomicU64>::default();
        free.set(-0.5);
        registry.register("free_bytes", "Free", free);
        let series: fn() -> HistogramMetric = || HistogramMetric::new([0.1, 1.0]);
        let durations = Series::<Vec<(&str, String)>, HistogramMetric>::new_with_constructor(series);
        registry.register("wait_seconds", "Waits", durations.clone());
        for (route, value) in [("a", 0.05), ("a", 0.5), ("a", 0.5), ("a", 5.0), ("b", 2.0)] {
            durations.get_or_create(&vec![("route", route.to_owned())]).observe(value);
        }
        registry.register("none", "No series", Series::<Vec<(&str, String)>, Counter>::default());
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let metrics = converted(&text, at(1), at(2));
        let [sends, free, waits] = &metrics[..] else { panic!("{metrics:?}") };
        let named = |metric: &Metric| (metric.name.clone(), metric.unit.clone());
        assert_eq!(named(sends), ("pushlet_sends".to_owned(), String::new()));
        assert_eq!(sends.description, "Sends, by outcome.");
        let Some(Data::Sum(sum)) = &sends.data else { panic!("{sends:?}") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.aggregation_temporality, 2);
        let [point] = &sum.data_points[..] else { panic!("{sum:?}") };
        let label = |key: &str, value: &str| attribute(key, Value::StringValue(value.to_owned()));
        assert_eq!(point.attributes, [label("outcome", ODD), label("x", "")]);
        assert_eq!(point.value, Some(Number::AsInt(7)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1_000_000_000, 2_000_000_000));
        assert_eq!(named(free), ("pushlet_free_bytes".to_owned(), "By".to_owned()));
        let Some(Data::Gauge(gauge)) = &free.data else { panic!("{free:?}") };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(-0.5)));
        assert_eq!(named(waits).1, "s");
        let Some(Data::Histogram(histogram)) = &waits.data else { panic!("{waits:?}") };
        let mut points = histogram.data_points.clone();
        points.sort_by_key(|point| std::cmp::Reverse(point.count));
        let [a, b] = &points[..] else { panic!("{points:?}") };
        assert_eq!((a.count, a.sum, &a.attributes), (4, Some(6.05), &vec![label("route", "a")]));
        assert_eq!((a.bucket_counts.clone(), a.explicit_bounds.clone()), (vec![1, 2, 1], vec![0.1, 1.0]));
        assert_eq!((b.count, b.bucket_counts.clone()), (1, vec![0, 0, 1]));
    }
}
