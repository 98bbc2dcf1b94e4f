//! Bytes that a tenant takes, counted before they are taken.
//!
//! Two bounds hold. A tenant's own limit, whatever the others use; and the process's, which is shared as a switch
//! shares its buffers ("dynamic thresholds", Choudhury and Hahne 1998): no tenant may hold more than what is still free.
//! So a tenant alone gets half, two get a third each, and however many hold all that they can get, there is as
//! much left for the next one.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use pushlet_model::named_enum;

/// The least memory of all accounts where nothing is configured.
const LEAST: u64 = 256 << 20;

named_enum! {
    /// What memory is reserved for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum MemoryUse {
        /// Bodies of requests, from the first byte that is read until the answer is ready.
        RequestBodies = "request_bodies",
        /// Parsed bodies.
        ParsedInput = "parsed_input",
        /// Answers of push services.
        Answers = "answers",
        /// Tokens that were reported dead.
        Feedback = "feedback",
        /// Messages that webhooks have not taken.
        Webhooks = "webhooks",
        /// Records of sends that a tenant captures.
        Captures = "captures",
        /// Answers to requests with an `Idempotency-Key`.
        Idempotency = "idempotency",
        /// Compiled code of uploaded components.
        Code = "code",
        /// Linear memory of the instances of uploaded components.
        Instances = "instances",
    }
}

/// The memory that all tenants have reserved.
pub(super) struct ProcessMemory {
    used: AtomicUsize,
    limit: usize,
}

impl ProcessMemory {
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes the bytes, unless the tenant would hold more than what is left. `total`: what the tenant holds
    /// with these bytes.
    fn take(&self, bytes: usize, total: usize) -> bool {
        let take = |used: usize| {
            // All tenants count, this one included: it may hold as much as is left for the others.
            let used = used.checked_add(bytes)?;
            (total <= self.limit.saturating_sub(used)).then_some(used)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// The memory that one tenant has reserved, by use.
pub(super) struct TenantMemory {
    used: [AtomicUsize; MemoryUse::ALL.len()],
    limit: AtomicUsize,
}

pub(super) enum MemoryShortage {
    Tenant,
    Process,
}

impl TenantMemory {
    pub fn new(limit: usize) -> Self {
        Self { used: Default::default(), limit: AtomicUsize::new(limit) }
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub fn used_for(&self, of: MemoryUse) -> usize {
        self.used[of as usize].load(Ordering::Acquire)
    }

    pub fn used(&self) -> usize {
        self.used.iter().fold(0, |sum, used| sum.saturating_add(used.load(Ordering::Acquire)))
    }

    pub fn take(&self, process: &ProcessMemory, of: MemoryUse, bytes: usize) -> Result<(), MemoryShortage> {
        // Before anything is added, so that no sum overflows.
        if bytes > process.limit {
            return Err(MemoryShortage::Tenant);
        }
        self.used[of as usize].fetch_add(bytes, Ordering::Relaxed);
        // Added before the sum is read, so that reservations made at the same time count each other.
        let total = self.used();
        let taken = if total > self.limit.load(Ordering::Relaxed) {
            Err(MemoryShortage::Tenant)
        } else if process.take(bytes, total) {
            Ok(())
        } else {
            Err(MemoryShortage::Process)
        };
        if taken.is_err() {
            self.used[of as usize].fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    pub fn give_back(&self, process: &ProcessMemory, of: MemoryUse, bytes: usize) {
        // In this order: whoever sees that the tenant has room again sees that the process has it too.
        process.used.fetch_sub(bytes, Ordering::Relaxed);
        self.used[of as usize].fetch_sub(bytes, Ordering::Release);
    }
}

/// Returns half of the memory that the process may use, and at least 256 MiB. The other half is for what is
/// on no account: connections, TLS, instances of the built-in components, and the rest of the machine.
pub fn default_memory() -> usize {
    usize::try_from((available() / 2).max(LEAST)).unwrap_or(usize::MAX)
}

/// Returns the bytes that the process may use, or 0 if that cannot be found out.
fn available() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups);
    let limits = limits.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(machine).min().unwrap_or(0)
}

/// Parses the line `MemTotal:       24684092 kB`; returns bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the files in which control groups of both versions hold their limit. In a container, its own group
/// is often mounted as the root. A group of version 2 without a limit holds the word `max`.
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
