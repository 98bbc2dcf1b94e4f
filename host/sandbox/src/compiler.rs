//! The parent's side of compiling: a child process for each component, with bounds that hold whatever it does.

use std::io::{self, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::error::{LoadError, excerpt};
use super::worker::{INVALID, NOTE, OUT_OF_MEMORY};

/// How often a running child is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of an artefact; they are about three times those of the component.
const LARGEST_ARTEFACT: u64 = 512 << 20;
/// Bytes of what a child says.
const LONGEST_COMPLAINT: u64 = 4 << 10;

/// Compiles components in child processes.
#[derive(Debug, Clone)]
pub struct ComponentCompiler {
    /// The program to run, which is this one; it is called as `PROGRAM compile --memory BYTES --cpu SECONDS`.
    pub program: PathBuf,
    pub limits: CompileLimits,
}

/// What one compilation may cost.
#[derive(Debug, Clone)]
pub struct CompileLimits {
    /// Bytes of address space.
    pub memory: usize,
    /// CPU time, in whole seconds.
    pub cpu: Duration,
    /// Wall-clock time.
    pub time: Duration,
}

/// What a compilation came to, and what it cost.
pub(super) struct CompileOutcome {
    pub artefact: Result<Vec<u8>, LoadError>,
    /// Processor time of the child.
    pub cpu: Duration,
}

/// What a child came to.
struct ChildExit {
    /// None: it was killed because its time was up.
    status: Option<ExitStatus>,
    cpu: Duration,
    output: io::Result<Vec<u8>>,
    complaint: String,
}

impl ComponentCompiler {
    /// This program, even when its file is replaced meanwhile.
    pub fn this_program() -> io::Result<PathBuf> {
        if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
    }

    /// The compiled form of a component that was checked. Blocks this thread for as long as it takes.
    pub(super) fn compile(&self, component: &[u8]) -> CompileOutcome {
        match self.run(component) {
            Ok(ended) => CompileOutcome { cpu: ended.cpu, artefact: self.artefact(ended) },
            Err(error) => CompileOutcome {
                artefact: Err(LoadError::NoCompiler(error.to_string())),
                cpu: Duration::ZERO,
            },
        }
    }

    fn artefact(&self, ended: ChildExit) -> Result<Vec<u8>, LoadError> {
        let ChildExit { status, output, complaint, .. } = ended;
        let (notes, complaint): (Vec<&str>, Vec<&str>) =
            complaint.lines().partition(|line| line.starts_with(NOTE));
        let complaint = complaint.join("\n");
        for note in notes {
            tracing::debug!(note, "the compiler could do more than it has to");
        }
        let too_costly = |what: String| Err(LoadError::TooCostly(what));
        let limits = &self.limits;
        let Some(status) = status else {
            return too_costly(format!("longer than {} s", limits.time.as_secs_f64()));
        };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match (code, status.signal().and_then(Signal::from_named_raw)) {
            (Some(0), _) => match output {
                Ok(artefact) if artefact.len() as u64 <= LARGEST_ARTEFACT => Ok(artefact),
                Ok(_) => too_costly(format!("more than {LARGEST_ARTEFACT} bytes of output")),
                Err(error) => Err(LoadError::NoCompiler(error.to_string())),
            },
            (Some(INVALID), _) => Err(LoadError::Invalid(excerpt(&complaint))),
            (Some(OUT_OF_MEMORY), _) | (_, Some(Signal::ABORT)) => {
                too_costly(format!("more than {} bytes of memory", limits.memory))
            }
            (_, Some(Signal::XCPU)) => {
                too_costly(format!("more than {} s of CPU time", limits.cpu.as_secs()))
            }
            (_, Some(Signal::KILL)) => too_costly("more than this machine has".into()),
            _ => Err(LoadError::NoCompiler(format!("{status}: {}", excerpt(&complaint)))),
        }
    }

    fn run(&self, component: &[u8]) -> io::Result<ChildExit> {
        let mut child = Command::new(&self.program)
            .arg("compile")
            .arg(format!("--memory={}", self.limits.memory))
            .arg(format!("--cpu={}", self.limits.cpu.as_secs().max(1)))
            .env_clear()
            // A thread that is there before the process confines itself would not be confined.
            .env("_RJEM_MALLOC_CONF", "background_thread:false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let deadline = Instant::now() + self.limits.time;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            // A child that does not read to the end says itself why.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(component)));
            let output = scope.spawn(move || read(stdout, LARGEST_ARTEFACT + 1));
            let complaint = scope.spawn(move || read(stderr, LONGEST_COMPLAINT));
            let (status, cpu) = wait(&mut child, deadline)?;
            let panicked = |_| Err(io::Error::other("a reader panicked"));
            let complaint = complaint.join().unwrap_or_else(panicked).unwrap_or_default();
            Ok(ChildExit {
                status,
                cpu,
                output: output.join().unwrap_or_else(panicked),
                complaint: String::from_utf8_lossy(&complaint).into_owned(),
            })
        })
    }
}

/// How it ended, and the processor time that it took. None: it was killed at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<(Option<ExitStatus>, Duration)> {
    let start = Instant::now();
    let mut killed = false;
    // It must not be reaped before its processor time is read.
    while !has_ended(child)? {
        if !killed && Instant::now() >= deadline {
            child.kill()?;
            killed = true;
        }
        thread::sleep(LOOK);
    }
    // Where the system does not say, it is taken to have run all the time.
    let cpu = cpu_time(child.id()).unwrap_or_else(|| start.elapsed());
    let status = child.wait()?;
    Ok(((!killed).then_some(status), cpu))
}

/// Leaves the child to be reaped.
fn has_ended(child: &Child) -> io::Result<bool> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return Ok(true) };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid), look)?.is_some())
}

/// The processor time of a process with all its threads, as Linux shows it (proc(5)).
fn cpu_time(pid: u32) -> Option<Duration> {
    /// Places of `utime` and `stime`, counted from behind the name, which may hold any letters.
    const UTIME: usize = 11;
    /// What the kernel counts these in, on all machines that this program is built for.
    const TICK: u64 = 10;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(UTIME).map(str::parse::<u64>);
    let ticks = times.next()?.ok()?.checked_add(times.next()?.ok()?)?;
    Some(Duration::from_millis(ticks.saturating_mul(TICK)))
}

fn read(pipe: Option<impl Read>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map(|pipe| pipe.take(most).read_to_end(&mut bytes)).transpose()?;
    Ok(bytes)
}
