//! Whose request it is. Applications, components, feedback and connections belong to one tenant.

use std::fmt;
use std::sync::Arc;

/// The id of a tenant, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The tenant of the classic HTTP Basic user, and of everyone where no authentication is set up.
    pub fn default_tenant() -> Self {
        Self::new("default")
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
