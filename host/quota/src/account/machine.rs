//! How much memory this machine, or the container that the process runs in, has.

use std::fs;

/// The least that accounts get where nothing is configured.
const LEAST: u64 = 256 << 20;

/// Half of the memory that the process may use, and at least 256 MiB. The other half is for what is on no account:
/// connections, TLS, instances of the built-in components, and the rest of the machine.
pub fn default_memory() -> usize {
    usize::try_from((available() / 2).max(LEAST)).unwrap_or(usize::MAX)
}

/// Bytes; 0 where it cannot be found out.
fn available() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups);
    let limits = limits.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(machine).min().unwrap_or(0)
}

/// The line `MemTotal:       24684092 kB`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where control groups of both versions say their limit. In a container its own group is often mounted as the
/// root. A group of version 2 without a limit holds the word `max`.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = vec![
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        match (parts.next(), parts.next()) {
            (Some(""), Some(path)) => files.push(format!("/sys/fs/cgroup{path}/memory.max")),
            (Some("memory"), Some(path)) => {
                files.push(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
            }
            _ => {}
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        assert_eq!(total("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), Some(24_684_092 << 10));
        assert_eq!(total("MemTotal: much\n"), None);
        let files = limit_files("9:name=systemd:/\n4:memory:/app\n0::/system.slice/pushlet.service\n");
        assert_eq!(files[2], "/sys/fs/cgroup/memory/app/memory.limit_in_bytes");
        assert_eq!(files[3], "/sys/fs/cgroup/system.slice/pushlet.service/memory.max");
        assert_eq!(files.len(), 4);
    }

    #[test]
    fn the_default_is_some_memory() {
        assert!(default_memory() >= 256 << 20);
    }
}
