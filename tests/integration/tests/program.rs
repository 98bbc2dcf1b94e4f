//! The server as a process of its own, with its log.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::harness::{Directory, wait_for};
use crate::upload::PROGRAM;

/// A running `serve`. It is killed when this is dropped.
pub struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
    pub base: String,
    directory: Option<Directory>,
}

impl Program {
    /// `toml`: its configuration, without `listen`.
    pub async fn serve(toml: &str) -> Self {
        Self::serve_exactly(&format!("listen = \"127.0.0.1:0\"\n{toml}")).await
    }

    /// `toml`: its whole configuration.
    pub async fn serve_exactly(toml: &str) -> Self {
        let directory = Directory::new();
        let file = directory.path().join("pushlet.toml");
        std::fs::write(&file, toml).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--config").arg(&file);
        let mut program = Self::run(command).await;
        program.directory = Some(directory);
        program
    }

    /// Starts a command that serves.
    pub async fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (lines, stderr) = (log.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
        let mut program = Self { child, log, base: String::new(), directory: None };
        program.base = wait_for("the server listens", async || program.address()).await;
        program
    }

    /// Returns the address that the log names, or `None` if it does not listen yet.
    fn address(&mut self) -> Option<String> {
        let log = self.log();
        assert!(!self.has_ended(), "it ended: {log}");
        let (_, rest) = log.split_once("is listening on ")?;
        let end = rest.find(|c: char| c == '"' || c.is_whitespace())?;
        Some(rest[..end].to_owned())
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The file of its configuration.
    pub fn configuration(&self) -> PathBuf {
        self.directory.as_ref().unwrap().path().join("pushlet.toml")
    }

    /// `name`: of the signal, as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of its memory that are resident.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn threads(&self) -> usize {
        self.count("task")
    }

    /// Open files and sockets.
    pub fn files(&self) -> usize {
        self.count("fd")
    }

    fn count(&self, folder: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{folder}", self.id())).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
