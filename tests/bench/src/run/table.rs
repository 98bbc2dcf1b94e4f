//! The figures as Markdown, and what they were measured on.

use std::fs;

use super::bench::Measured;
use crate::linked::Mode;

/// One line of the table.
pub struct Row {
    pub what: String,
    pub mode: &'static str,
    pub measured: Measured,
    /// Per push, if they were counted.
    pub allocations: Option<u64>,
}

/// The whole table. Ratios of processor time: to the native row of the same measurement, and to `h2load`, its
/// microseconds per request.
pub fn table(rows: &[Row], h2load: Option<f64>) -> String {
    let mut text = "| what | mode | pushes/s | CPU µs/push | × native | × h2load | sink µs/push | p50 ms | p99 ms | p99.9 ms | RSS MiB | futex/push | switches/push | allocations/push | not 200 |\n\
                    |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for row in rows {
        let native = rows.iter().find(|other| other.what == row.what && other.mode == Mode::Native.name());
        let native = native.map(|native| native.measured.cpu);
        text.push_str(&format!("| {} | {} | {} |\n", row.what, row.mode, cells(row, native, h2load)));
    }
    text
}

fn cells(row: &Row, native: Option<f64>, h2load: Option<f64>) -> String {
    let measured = &row.measured;
    let figures = &measured.figures;
    let milliseconds = |micros: u32| match micros {
        0 => String::new(),
        micros => format!("{:.2}", f64::from(micros) / 1000.0),
    };
    let ratio = |to: Option<f64>| to.map(|to| format!("{:.2}", measured.cpu / to)).unwrap_or_default();
    let failed: u64 =
        figures.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum();
    [
        format!("{:.0}", measured.pushes_per_second()),
        format!("{:.1}", measured.cpu),
        ratio(native),
        ratio(h2load),
        format!("{:.1}", measured.sink_cpu),
        milliseconds(figures.p50),
        milliseconds(figures.p99),
        milliseconds(figures.p999),
        format!("{:.1}", measured.resident as f64 / 1024.0),
        measured.wakes.map(|(futexes, _)| format!("{futexes:.2}")).unwrap_or_default(),
        measured.wakes.map(|(_, switches)| format!("{switches:.2}")).unwrap_or_default(),
        row.allocations.map(|count| count.to_string()).unwrap_or_default(),
        failed.to_string(),
    ]
    .join(" | ")
}

/// Processor, number of cores, memory, kernel, and how busy the machine was before the run.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| {
            Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned())
        });
        line.unwrap_or_else(|| "unknown".into())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (processor, memory) =
        (field(&read("/proc/cpuinfo"), "model name"), field(&read("/proc/meminfo"), "MemTotal"));
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or_default();
    format!("{processor}, {cores} cores, {memory}, Linux {}, load {load} before the run", kernel.trim())
}
