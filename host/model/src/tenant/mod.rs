//! Whose request it is. Applications, components, feedback and connections belong to one tenant.

mod limits;

use std::fmt;
use std::sync::Arc;

pub use limits::TenantLimits;

const LONGEST_ID: usize = 64;
const DEFAULT: &str = "default";

/// The id of a tenant, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// From a caller: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit.
    pub fn parse(id: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        (begins && id.len() <= LONGEST_ID && id.bytes().all(plain)).then(|| Self::new(id))
    }

    /// The tenant of the classic HTTP Basic user, and of everyone where no authentication is set up.
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
