//! The metrics of this process under the names that Prometheus' own clients use, read from `/proc` (proc(5)); and what
//! was built.

use std::fs;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use pushlet_model::COMMIT;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    commit: &'static str,
    arch: &'static str,
}

/// Adds what was built.
pub fn register_build(registry: &mut Registry) {
    let info = Family::<BuildLabels, Gauge>::default();
    let arch = std::env::consts::ARCH;
    info.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION"), commit: COMMIT, arch }).set(1);
    registry.register("build_info", "Always 1; the labels say what was built", info);
}

/// Returns what the process uses now; what the system does not tell is left out.
pub fn usage() -> Registry {
    let mut registry = Registry::with_prefix("process");
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        let cpu = ConstCounter::new(stat.cpu_seconds);
        registry.register("cpu_seconds", "User and system CPU time spent", cpu);
        let mut gauge =
            |name: &str, help: &str, value: f64| registry.register(name, help, ConstGauge::new(value));
        gauge("resident_memory_bytes", "Resident memory size", stat.resident_bytes);
        gauge("virtual_memory_bytes", "Virtual memory size", stat.virtual_bytes);
        gauge("threads", "Threads", stat.threads);
        if let Some(booted) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
            let help = "Start time of the process since the Unix epoch";
            gauge("start_time_seconds", help, booted + stat.started_seconds);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is that of the directory itself.
        let open = files.count().saturating_sub(1) as f64;
        registry.register("open_fds", "Open file descriptors", ConstGauge::new(open));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        registry.register("max_fds", "Most open file descriptors", ConstGauge::new(most as f64));
    }
    registry
}

/// Some fields of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// Since the machine was booted.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name, in parentheses, may hold spaces and parentheses.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // proc(5) counts from 1, and the name is the second.
        let field = |number: usize| fields.get(number - 3)?.trim_end().parse::<f64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            started_seconds: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as f64,
        })
    }
}

/// Returns the time of the boot, in seconds since the Unix epoch.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Turns a text of the OpenMetrics format into Prometheus' older text format, version 0.0.4: there a counter's name is
/// that of its samples, and there is no end mark.
pub fn older_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        // The type of a metric stands in the line after its help.
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let names_counter = is_counter(line)
            || line.starts_with("# HELP ") && lines.peek().is_some_and(|next| is_counter(next));
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            [hash, keyword, name, rest] if names_counter => {
                text.extend([hash, " ", keyword, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        let name = "7 (a ) b) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 12 0 300 8192 3 18446744073709551615 1 1 0";
        let stat = Stat::parse(name).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((stat.cpu_seconds, stat.threads), (200.0 / ticks, 12.0));
        assert_eq!((stat.started_seconds, stat.virtual_bytes), (300.0 / ticks, 8192.0));
        assert_eq!(stat.resident_bytes, 3.0 * rustix::param::page_size() as f64);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &usage()).unwrap();
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"]
        {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(line.unwrap().parse::<f64>().unwrap() > 0.0, "{name}: {text}");
        }
    }

    #[test]
    fn the_older_format_names_counters_by_their_samples() {
        let open = "# HELP a Counts, of what.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# EOF\"} 1\n\
                    # HELP b Two words.\n# TYPE b gauge\nb 2.0\n# EOF\n";
        let older = "# HELP a_total Counts, of what.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n\
                     # HELP b Two words.\n# TYPE b gauge\nb 2.0\n";
        assert_eq!(older_format(open), older);
    }
}
