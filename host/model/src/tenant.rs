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

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send, and take the reports of dead tokens.
    Send,
    /// Register, change and remove applications, what push services keep for them, and providers.
    Manage,
    /// Look at everything.
    Read,
}

/// What an API key may do: all, or some of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(Option<[bool; 3]>);

impl Scopes {
    pub const ALL: Self = Self(None);

    /// Returns the scopes of a list; None: it is empty.
    pub fn of(list: &[Scope]) -> Option<Self> {
        (!list.is_empty()).then(|| Self::only(list))
    }

    /// Returns these scopes, or none at all.
    pub fn only(list: &[Scope]) -> Self {
        let has = |scope| list.contains(&scope);
        Self(Some([has(Scope::Send), has(Scope::Manage), has(Scope::Read)]))
    }

    pub fn has(self, scope: Scope) -> bool {
        self.0.is_none_or(|own| own[scope as usize])
    }

    /// Returns the list; None: there are no bounds.
    pub fn list(self) -> Option<Vec<Scope>> {
        let all = [Scope::Send, Scope::Manage, Scope::Read];
        self.0.map(|_| all.into_iter().filter(|scope| self.has(*scope)).collect())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send => "send",
            Self::Manage => "manage",
            Self::Read => "read",
        })
    }
}

/// Declares the limits, each with its least value in the API's description, and switches that say how they hold.
macro_rules! limits {
    (
        { $($(#[$docs:meta])* $limit:ident: $type:ty, $least:tt;)+ }
        { $($(#[$about:meta])* $switch:ident;)+ }
    ) => {
        /// The limits of one tenant. None: the server's own configuration applies, which may set no limit.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct TenantLimits {
            $(
                $(#[$docs])*
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schema(value_type = Option<u64>, minimum = $least)]
                pub $limit: Option<$type>,
            )+
            $(
                $(#[$about])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $switch: Option<bool>,
            )+
        }

        impl TenantLimits {
            /// The names of the limits.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($limit),)+ $(stringify!($switch)),+];

            /// Returns these limits where they are set, and the defaults elsewhere.
            pub fn over(self, defaults: Self) -> Self {
                Self { $($limit: self.$limit.or(defaults.$limit),)+ $($switch: self.$switch.or(defaults.$switch),)+ }
            }
        }
    };
}

limits! {
    {
        requests_per_second: NonZeroU64, 1;
        /// Targets of sends.
        pushes_per_second: NonZeroU64, 1;
        /// Sends in flight. A send with many targets counts once, and so does a stream.
        concurrent_sends: NonZeroU64, 1;
        applications: u64, 0;
        /// Providers that it uploaded, with all their versions; 0: none may be uploaded.
        components: u64, 0;
        /// Bytes of all versions of these.
        component_bytes: u64, 0;
        /// Milliseconds of one call into an uploaded component.
        call_milliseconds: NonZeroU64, 1;
        /// CPU time of calls into uploaded components, signatures, reading large bodies and credential files, in
        /// milliseconds per second.
        cpu_milliseconds_per_second: NonZeroU64, 1;
        /// Bytes of linear memory of one instance of an uploaded component.
        instance_memory_bytes: NonZeroU64, 1;
        /// Bytes of requests in flight and what becomes of them, of answers, feedback and idempotency keys that are kept,
        /// of compiled code, and of linear memory of all these instances.
        memory_bytes: NonZeroU64, 1;
    }
    {
        /// In a fleet: the limits per second hold exactly, however unevenly the requests are spread over the servers.
        /// Without it, each server grants its share.
        exact_rates;
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
