//! What a component may use, and whose code it is.

use std::time::Duration;

use super::breaker::BreakerPolicy;

/// What a component may use.
#[derive(Debug, Clone)]
pub struct SandboxLimits {
    /// Bytes of linear memory per instance, summed over its memories.
    pub memory: usize,
    /// Table elements per instance, summed over its tables.
    pub table_elements: usize,
    /// Bytes that one call may hand to the host, for a call about a single target.
    pub result: usize,
    /// Additional bytes for each target.
    pub result_per_target: usize,
    /// Resource handles alive at once.
    pub handles: usize,
    /// Processor time of one call; it may take four times as long where others keep the processors.
    pub call_timeout: Duration,
    /// Instances alive at once in the whole process.
    pub instances: u32,
    /// Idle instances kept per tenant and component.
    pub idle: usize,
    /// Bytes of linear memory that these may have.
    pub idle_memory: usize,
    /// Bytes of linear memory that all idle instances may have.
    pub idle_memory_in_all: usize,
    /// For how long an idle instance is kept.
    pub idle_for: Duration,
    /// Calls after which an instance is retired.
    pub calls_per_instance: u32,
    /// Bytes of a component file.
    pub component: usize,
    pub isolation: InstanceIsolation,
    pub breaker: BreakerPolicy,
}

impl SandboxLimits {
    /// How many idle instances go at once when there is no room for another.
    pub(super) fn eviction(&self) -> usize {
        (self.instances as usize / 16).max(1)
    }
}

/// The origin of a component's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentTrust {
    /// This server's own. Its calls are short, and run wherever they are made.
    BuiltIn,
    /// Anyone's. Its calls wait for their turn, and their CPU time is counted.
    Uploaded,
}

/// When an instance is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceIsolation {
    /// For many calls of one tenant.
    Warm,
    /// Never: every call gets a fresh instance.
    PerCall,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 100_000,
            result: 256 << 10,
            result_per_target: 8 << 10,
            handles: 1024,
            call_timeout: Duration::from_millis(250),
            instances: 1000,
            idle: 4,
            idle_memory: 64 << 20,
            idle_memory_in_all: 2 << 30,
            idle_for: Duration::from_secs(60),
            calls_per_instance: 100_000,
            component: 32 << 20,
            isolation: InstanceIsolation::Warm,
            breaker: BreakerPolicy::default(),
        }
    }
}
