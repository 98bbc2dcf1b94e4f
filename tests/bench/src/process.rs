//! Processes under measurement: started, asked for what they used, ended.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, at};

/// Kernel clock ticks per second in /proc (proc_pid_stat(5)); fixed at 100 for user space on Linux.
const TICKS: u64 = 100;

/// A child that ends with this value.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().map_err(at(&name))?))
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Processor time of this process alone, user and system, all its threads.
    pub fn cpu(&self) -> Duration {
        cpu(&format!("/proc/{}/stat", self.0.id()), 11)
    }

    /// Resident memory, KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts how often a process's threads wait for each other and are switched, for as long as `perf` is there to do it.
pub struct WakeCounter(Option<Process>);

/// What a [`WakeCounter`] counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeCounts {
    /// Calls of futex(2).
    pub futexes: u64,
    pub switches: u64,
}

impl WakeCounter {
    /// Begins to count; without `perf`, or the permission to use it, there is no count.
    pub fn start(process: &Process) -> Self {
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "syscalls:sys_enter_futex,context-switches", "-p"]);
        command.arg(process.id().to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        Self(Process::start(command.stderr(Stdio::piped())).ok())
    }

    /// Ends, and returns the counts.
    pub fn stop(self) -> Option<WakeCounts> {
        let mut perf = self.0?;
        // Upon this signal it prints them.
        Command::new("kill").args(["-INT", &perf.id().to_string()]).status().ok()?;
        let mut text = String::new();
        perf.child().stderr.take()?.read_to_string(&mut text).ok()?;
        wake_counts(&text)
    }
}

/// Reads what `perf stat -x,` prints: count, unit, event, and more.
fn wake_counts(text: &str) -> Option<WakeCounts> {
    let count = |event: &str| {
        let line = text.lines().find(|line| line.split(',').nth(2) == Some(event))?;
        line.split(',').next()?.parse().ok()
    };
    Some(WakeCounts { futexes: count("syscalls:sys_enter_futex")?, switches: count("context-switches")? })
}

/// Processor time of the children that have ended and were waited for.
pub fn children_cpu() -> Duration {
    cpu("/proc/self/stat", 13)
}

/// Two neighbouring fields, counted from the state: user and system time.
fn cpu(path: &str, first: usize) -> Duration {
    let stat = fs::read_to_string(path).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(first).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// This program again, in another part.
pub fn myself(part: impl AsRef<OsStr>, argument: &impl serde::Serialize) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe().map_err(at("this program"))?);
    command.arg(part).arg(serde_json::to_string(argument).map_err(at("arguments"))?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

/// A free port of loopback.
pub fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(at("a port"))?;
    Ok(listener.local_addr().map_err(at("a port"))?.port())
}

/// Finds a program in PATH.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_perf_are_read() {
        let text = "12,,syscalls:sys_enter_futex,798291,100.00,,\n7,,context-switches,798291,100.00,,\n";
        assert_eq!(wake_counts(text), Some(WakeCounts { futexes: 12, switches: 7 }));
        assert_eq!(wake_counts("<not counted>,,syscalls:sys_enter_futex,0,0.00,,\n"), None);
        assert_eq!(wake_counts("event syntax error"), None);
    }
}
