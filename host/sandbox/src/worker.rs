//! The child process that compiles one component: `pushlet compile`.
//!
//! Compiling a stranger's code can cost any amount of time and memory, and cannot be interrupted. So it happens
//! in a process that bounds itself, and gives up all that it does not need, before it reads the first byte, and that
//! its parent can kill. The
//! component comes in at stdin, the artefact goes out at stdout, what is wrong with it to stderr.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};

use super::{confine, engine};

/// The component is at fault; stderr says how.
pub(super) const INVALID: u8 = 3;
/// There was no memory left.
pub(super) const OUT_OF_MEMORY: u8 = 4;

/// How much less than others it is served when the processor is wanted.
const NICENESS: i32 = 10;
/// Seconds between the signal that can be caught and the one that cannot.
const GRACE: u64 = 1;

/// How what is no complaint begins on stderr.
pub(super) const NOTE: &str = "note: ";

/// Bounds this process to `memory` bytes of address space and `cpu` seconds, and compiles stdin to stdout.
pub fn compile(memory: u64, cpu: u64) -> ExitCode {
    match bound(memory, cpu).map_err(wasmtime::Error::from).and_then(|()| compile_confined()) {
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

fn bound(memory: u64, cpu: u64) -> io::Result<()> {
    let limit =
        |resource, soft, hard| setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) });
    limit(Resource::As, memory, memory)?;
    limit(Resource::Cpu, cpu, cpu + GRACE)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    limit(Resource::Nofile, 16, 16)?;
    #[cfg(target_os = "linux")]
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Where it may not, it is served like everybody.
    let _ = nice(NICENESS);
    Ok(())
}

fn compile_confined() -> wasmtime::Result<()> {
    for kept in confine::confine() {
        // The parent reads it, and it is no reason not to compile.
        let _ = writeln!(io::stderr(), "{NOTE}{kept}");
    }
    compile_all()
}

fn compile_all() -> wasmtime::Result<()> {
    let mut component = Vec::new();
    io::stdin().read_to_end(&mut component)?;
    let artefact = engine::for_compiling()?.precompile_component(&component)?;
    io::stdout().write_all(&artefact)?;
    Ok(())
}
