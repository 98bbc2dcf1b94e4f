//! What the process that compiles may still do: read its input, write its output, and use memory.
//!
//! A component is a stranger's code, and the compiler that reads it is large. Should one make it do something else,
//! then nothing is within reach: no privileges, no files, no sockets, no other process.

/// Gives everything up that compiling does not need, for this thread and those that it starts. Answers what this
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
