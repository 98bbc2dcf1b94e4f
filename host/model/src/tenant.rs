//! A tenant: its id, and how much of this server it may use. Applications, components, feedback and connections belong
//! to one tenant.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const LONGEST_ID: usize = 64;
const DEFAULT: &str = "default";

/// The id of a tenant, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// Parses a caller's text: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit.
    pub fn parse(id: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        (begins && id.len() <= LONGEST_ID && id.bytes().all(plain)).then(|| Self::new(id))
    }

    /// Returns the tenant of the classic HTTP Basic user, and of all requests where no authentication is set
    /// up.
    pub fn default_tenant() -> Self {
        Self::new(DEFAULT)
    }

    pub fn is_default(&self) -> bool {
        self.as_str() == DEFAULT
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The limits of one tenant. None: the server's own configuration applies, which may set no limit.
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
    /// Returns these limits where they are set, and the defaults elsewhere.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain() {
        let long = "x".repeat(64);
        for right in ["a", "default", "acme-2_b.c", "9", &long] {
            assert!(TenantId::parse(right).is_some(), "{right}");
        }
        let longer = "x".repeat(65);
        for wrong in ["", ".", "-a", "a/b", "a b", "a:b", "ü", "a\0", "a\n", &longer] {
            assert!(TenantId::parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
