//! Bytes that a tenant takes, counted before they are taken.
//!
//! Two bounds hold. A tenant's own limit, whatever the others use; and the process's, which is shared as a switch
//! shares its buffers ("dynamic thresholds", Choudhury and Hahne 1998): nobody may hold more than what is still free.
//! So a tenant alone gets half, two get a third each, and however many hold all that they can get, there is as
//! much left for the next one.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What memory is reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryUse {
    /// Bodies of requests, from the first byte that is read until the answer is made.
    RequestBodies,
    /// What bodies became when they were parsed.
    ParsedInput,
    /// Answers of push services.
    Answers,
    /// Tokens that were reported dead.
    Feedback,
    /// Answers to requests with an `Idempotency-Key`.
    Idempotency,
    /// Compiled code of uploaded components.
    Code,
    /// Linear memory of the instances of uploaded components.
    Instances,
}

impl MemoryUse {
    pub const ALL: [Self; 7] = [
        Self::RequestBodies,
        Self::ParsedInput,
        Self::Answers,
        Self::Feedback,
        Self::Idempotency,
        Self::Code,
        Self::Instances,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::RequestBodies => "request_bodies",
            Self::ParsedInput => "parsed_input",
            Self::Answers => "answers",
            Self::Feedback => "feedback",
            Self::Idempotency => "idempotency",
            Self::Code => "code",
            Self::Instances => "instances",
        }
    }
}

/// What all tenants have reserved.
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

    /// `total`: what the tenant has with these bytes. False: it would be more than what is left.
    fn take(&self, bytes: usize, total: usize) -> bool {
        let take = |used: usize| {
            let used = used.checked_add(bytes)?;
            (total <= self.limit.saturating_sub(used)).then_some(used)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// What one tenant has reserved, by use. It fits into one cache line with its limit.
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
        self.used[of as usize].load(Ordering::Relaxed)
    }

    pub fn used(&self) -> usize {
        self.used.iter().fold(0, |sum, used| sum.saturating_add(used.load(Ordering::Relaxed)))
    }

    pub fn take(&self, process: &ProcessMemory, of: MemoryUse, bytes: usize) -> Result<(), MemoryShortage> {
        // Before anything is added, so that no sum overflows.
        if bytes > process.limit {
            return Err(MemoryShortage::Tenant);
        }
        self.used[of as usize].fetch_add(bytes, Ordering::Relaxed);
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
        self.used[of as usize].fetch_sub(bytes, Ordering::Relaxed);
        process.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
