//! How much of this server one tenant may use.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Each is a most; None: what the server's own configuration says, which may be nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub requests_per_second: Option<NonZeroU64>,
    /// Targets of sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub pushes_per_second: Option<NonZeroU64>,
    /// Sends in flight. A send with many targets counts once, and so does a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub concurrent_sends: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applications: Option<u64>,
    /// Providers that it uploaded, with all their versions; 0: none may be uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<u64>,
    /// Bytes of all versions of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component_bytes: Option<u64>,
    /// Milliseconds of one call into an uploaded component.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub call_milliseconds: Option<NonZeroU64>,
    /// CPU time of calls into uploaded components, signatures, reading large bodies and credential files, in
    /// milliseconds per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub cpu_milliseconds_per_second: Option<NonZeroU64>,
    /// Bytes of linear memory of one instance of an uploaded component.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub instance_memory_bytes: Option<NonZeroU64>,
    /// Bytes of requests in flight and what becomes of them, of answers, feedback and idempotency keys that are kept, of
    /// compiled code, and of linear memory of all these instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub memory_bytes: Option<NonZeroU64>,
}

impl TenantLimits {
    /// These where they are set, and the defaults elsewhere.
    pub fn over(self, defaults: Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(defaults.requests_per_second),
            pushes_per_second: self.pushes_per_second.or(defaults.pushes_per_second),
            concurrent_sends: self.concurrent_sends.or(defaults.concurrent_sends),
            applications: self.applications.or(defaults.applications),
            components: self.components.or(defaults.components),
            component_bytes: self.component_bytes.or(defaults.component_bytes),
            call_milliseconds: self.call_milliseconds.or(defaults.call_milliseconds),
            cpu_milliseconds_per_second: self
                .cpu_milliseconds_per_second
                .or(defaults.cpu_milliseconds_per_second),
            instance_memory_bytes: self.instance_memory_bytes.or(defaults.instance_memory_bytes),
            memory_bytes: self.memory_bytes.or(defaults.memory_bytes),
        }
    }
}
