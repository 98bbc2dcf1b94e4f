//! The figures as Markdown, and what they were measured on.

use std::fs;

use super::bench::Measured;

/// One line of the table.
pub struct Row {
    pub what: String,
    pub mode: &'static str,
    /// None: the server has no such route or provider.
    pub measured: Option<Measured>,
}

/// The whole table; ratios are to `baseline`, microseconds per push.
pub fn table(rows: &[Row], baseline: Option<f64>) -> String {
    let mut text = "| what | mode | pushes/s | CPU µs/push | × relay | sink µs/push | p50 ms | p99 ms | p99.9 ms | RSS MiB | not 200 |\n\
                    |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} |\n",
            row.what,
            row.mode,
            cells(row.measured.as_ref(), baseline)
        ));
    }
    text
}

fn cells(measured: Option<&Measured>, baseline: Option<f64>) -> String {
    let Some(measured) = measured else {
        return "not available | | | | | | | |".to_owned();
    };
    let figures = &measured.figures;
    let milliseconds = |micros: u32| match micros {
        0 => String::new(),
        micros => format!("{:.2}", f64::from(micros) / 1000.0),
    };
    let failed: u64 =
        figures.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum();
    [
        format!("{:.0}", measured.pushes_per_second()),
        format!("{:.1}", measured.cpu),
        baseline.map(|baseline| format!("{:.2}", measured.cpu / baseline)).unwrap_or_default(),
        format!("{:.1}", measured.sink_cpu),
        milliseconds(figures.p50),
        milliseconds(figures.p99),
        milliseconds(figures.p999),
        format!("{:.1}", measured.resident as f64 / 1024.0),
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
