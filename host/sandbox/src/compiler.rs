//! Compiling: a child process for each uploaded component (`pushlet compile`), with bounds that hold whatever it does.
//!
//! Compiling a stranger's code can cost any amount of time and memory, and cannot be interrupted. So it happens in a
//! process that limits itself before it reads the first byte, and that its parent can kill. The compiler is large; if
//! a component makes it do something else, nothing is within reach: no privileges, no files, no sockets, no other
//! process. The component comes in at stdin, the artefact goes out at stdout, the reason of a failure to stderr.

use std::io::{self, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, set_parent_process_death_signal, setrlimit, waitid,
};

use super::error::{LoadError, excerpt};
use super::sandbox;

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
    /// Returns the path of this program, which stays valid when its file is replaced.
    pub fn this_program() -> io::Result<PathBuf> {
        if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
    }

    /// Compiles a component that was checked, at the priority of this thread, which it blocks for as long as it takes.
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
            // The server's environment may hold secrets.
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

/// Waits for the end of the child. Returns its status and processor time; None: it was killed at the deadline.
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

/// Returns the processor time of a process with all its threads, as Linux shows it (proc(5)).
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

/// The component is at fault; stderr says how.
pub(super) const INVALID: u8 = 3;
/// There was no memory left.
pub(super) const OUT_OF_MEMORY: u8 = 4;

/// Seconds between the signal that can be caught and the one that cannot.
const GRACE: u64 = 1;

/// How what is no complaint begins on stderr.
pub(super) const NOTE: &str = "note: ";

/// Bounds this process to `memory` bytes of address space and `cpu` seconds, and compiles stdin to stdout.
pub fn compile(memory: u64, cpu: u64) -> ExitCode {
    match limit_resources(memory, cpu).map_err(wasmtime::Error::from).and_then(|()| compile_confined()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(io::stderr(), "{error:#}");
            let starved = error.chain().any(|cause| {
                cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::OutOfMemory)
            });
            ExitCode::from(if starved { OUT_OF_MEMORY } else { INVALID })
        }
    }
}

fn limit_resources(memory: u64, cpu: u64) -> io::Result<()> {
    let limit =
        |resource, soft, hard| setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) });
    limit(Resource::As, memory, memory)?;
    limit(Resource::Cpu, cpu, cpu + GRACE)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    limit(Resource::Nofile, 16, 16)?;
    #[cfg(target_os = "linux")]
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

fn compile_confined() -> wasmtime::Result<()> {
    for kept in confine() {
        // The parent reads it, and it is no reason not to compile.
        let _ = writeln!(io::stderr(), "{NOTE}{kept}");
    }
    compile_stdin()
}

fn compile_stdin() -> wasmtime::Result<()> {
    let mut component = Vec::new();
    io::stdin().read_to_end(&mut component)?;
    let artefact = sandbox::compiling_engine()?.precompile_component(&component)?;
    io::stdout().write_all(&artefact)?;
    Ok(())
}

/// Gives up everything that compiling does not need, for this thread and those that it starts. Returns what this
/// kernel cannot take away.
#[cfg(target_os = "linux")]
pub(super) fn confine() -> Vec<String> {
    // The filter comes with the promise that no program that is run gets new privileges.
    let steps = [("capabilities", linux::drop_capabilities()), ("system calls", linux::filter_calls())];
    let failed = steps.into_iter().filter_map(|(what, result)| Some((what, result.err()?)));
    failed.map(|(what, error)| format!("it keeps its {what}: {error}")).collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn confine() -> Vec<String> {
    vec!["it is confined on Linux only".to_owned()]
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;

    use caps::CapSet;
    use seccompiler::SeccompCmpArgLen::Dword;
    use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
    use seccompiler::{
        BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    };

    /// System calls that are allowed whatever their arguments: memory, time, locks, signals to itself, the end.
    const ALWAYS: [libc::c_long; 18] = [
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// In this order: what is in effect must be permitted.
    pub(super) fn drop_capabilities() -> Result<(), String> {
        let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable];
        sets.into_iter().try_for_each(|set| caps::clear(None, set)).map_err(|error| error.to_string())
    }

    /// Refuses every other call. It fails, it does not kill: libraries ask for this and that and go on without.
    pub(super) fn filter_calls() -> Result<(), String> {
        let filter = filter().map_err(|error| error.to_string())?;
        seccompiler::apply_filter(&filter).map_err(|error| error.to_string())
    }

    fn filter() -> Result<BpfProgram, BackendError> {
        let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> =
            ALWAYS.into_iter().map(|call| (call, Vec::new())).collect();
        let rule = |conditions: Vec<Result<SeccompCondition, BackendError>>| {
            SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
        };
        let argument = |index, value: u32| SeccompCondition::new(index, Dword, Eq, value.into());
        // Descriptors that the server's own parent left open are of no use here.
        rules.insert(libc::SYS_read, vec![rule(vec![argument(0, 0)])?]);
        for call in [libc::SYS_write, libc::SYS_writev] {
            rules.insert(call, vec![rule(vec![argument(0, 1)])?, rule(vec![argument(0, 2)])?]);
        }
        // Memory of no file, and none that can be executed.
        let not_executable = || SeccompCondition::new(2, Dword, MaskedEq(libc::PROT_EXEC as u64), 0);
        rules.insert(libc::SYS_mmap, vec![rule(vec![not_executable(), argument(4, u32::MAX)])?]);
        rules.insert(libc::SYS_mprotect, vec![rule(vec![not_executable()])?]);
        // For `abort`.
        rules.insert(libc::SYS_tgkill, vec![rule(vec![argument(0, std::process::id())])?]);
        let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
        let refused = SeccompAction::Errno(libc::EPERM as u32);
        SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{self, File};
    use std::io::{ErrorKind, Read as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn one_that_compiles_reaches_no_file_socket_or_process() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        let mut left_open = File::open("/proc/self/status").unwrap();
        // The filter is for one thread, and ends with it.
        let confined = thread::spawn(move || {
            let kept = confine();
            let mut byte = [0];
            let tried = [
                ("open", File::open("/etc/hostname").map(drop).map_err(|error| error.kind())),
                ("create", fs::write("/tmp/x", "x").map_err(|error| error.kind())),
                ("list", fs::read_dir("/").map(drop).map_err(|error| error.kind())),
                ("connect", TcpStream::connect(address).map(drop).map_err(|error| error.kind())),
                ("listen", TcpListener::bind("127.0.0.1:0").map(drop).map_err(|error| error.kind())),
                ("datagram", UdpSocket::bind("127.0.0.1:0").map(drop).map_err(|error| error.kind())),
                ("pair", UnixStream::pair().map(drop).map_err(|error| error.kind())),
                ("run", Command::new("/bin/true").status().map(drop).map_err(|error| error.kind())),
                ("left open", left_open.read(&mut byte).map(drop).map_err(|error| error.kind())),
            ];
            (kept, tried)
        });
        let (kept, tried) = confined.join().unwrap();
        assert!(kept.is_empty(), "{kept:?}");
        for (what, result) in tried {
            assert_eq!(result, Err(ErrorKind::PermissionDenied), "{what}");
        }
        assert!(File::open("/etc/hostname").is_ok() || File::open("/etc/passwd").is_ok());
    }
}
