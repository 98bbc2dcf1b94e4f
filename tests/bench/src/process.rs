//! Processes under measurement: started, asked for what they used, ended.

use std::ffi::OsStr;
use std::fs;
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
