//! Why a component is not taken, and how a call of one fails.

use std::fmt;
use std::time::Duration;

use pushlet_model::error::{Error, Kind};

/// The version of `wit/provider.wit` that this host serves.
pub(super) const CONTRACT: &str = "1.0.0";

/// How a call of a component failed. The caller's request fails; no other request is affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("the provider did not answer in time")]
    TimedOut,
    #[error("the provider reached its memory limit")]
    OutOfMemory,
    #[error("the provider stopped: {0}")]
    Panicked(String),
    #[error("the provider's answer breaks the contract: {0}")]
    BadOutput(String),
    #[error("the provider asked for what it may not have: {0}")]
    Refused(String),
    /// It failed so often that it is not called for a while.
    #[error("the provider kept failing and is not called for now")]
    Quarantined { retry_after: Duration },
    #[error("the tenant's providers used up their CPU time (limit cpu_milliseconds_per_second)")]
    CpuLimit { retry_after: Duration },
    #[error("the tenant's providers use all the memory that they may have (limit memory_bytes)")]
    MemoryLimit,
    /// Not the component's fault.
    #[error("all instances are in use")]
    Exhausted,
}

impl ProviderError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::TimedOut => "provider_timeout",
            Self::OutOfMemory => "provider_memory",
            Self::Panicked(_) => "provider_panicked",
            Self::BadOutput(_) => "provider_bad_output",
            Self::Refused(_) => "provider_refused",
            Self::Quarantined { .. } => "provider_quarantined",
            Self::CpuLimit { .. } => "provider_cpu_limit",
            Self::MemoryLimit => "provider_memory_limit",
            Self::Exhausted => "overloaded",
        }
    }

    /// Returns true if the component itself failed in a call that was made.
    pub fn is_components_fault(&self) -> bool {
        !matches!(
            self,
            Self::Quarantined { .. } | Self::CpuLimit { .. } | Self::MemoryLimit | Self::Exhausted
        )
    }
}

/// Returns the beginning of a guest's text, for an error message.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Returns the error for an answer that breaks the contract.
pub(super) fn bad(what: impl Into<String>) -> ProviderError {
    ProviderError::BadOutput(what.into())
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        let message = error.to_string();
        match error {
            ProviderError::Exhausted => {
                Error::new(Kind::Overloaded, error.code(), message).after(Duration::from_secs(1))
            }
            ProviderError::MemoryLimit => {
                Error::new(Kind::Throttled, error.code(), message).after(Duration::from_secs(1))
            }
            ProviderError::CpuLimit { retry_after } => {
                Error::new(Kind::Throttled, error.code(), message).after(retry_after)
            }
            ProviderError::Quarantined { retry_after } => {
                Error::new(Kind::Provider, error.code(), message).after(retry_after)
            }
            ProviderError::TimedOut => Error::new(Kind::ProviderTimedOut, error.code(), message),
            _ => Error::new(Kind::Provider, error.code(), message),
        }
    }
}

/// Why a component is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the component has {size} bytes, more than the {limit} allowed")]
    TooLarge { size: usize, limit: usize },
    #[error("the component has more than {limit} {what}")]
    TooComplex { what: &'static str, limit: usize },
    #[error("not a valid WebAssembly component: {0}")]
    Invalid(String),
    #[error("the component imports {0}")]
    ForbiddenImport(ForbiddenImports),
    #[error(
        "the component exports no {0}: it is built neither for the world http-provider nor for stream-provider"
    )]
    WrongWorld(&'static str),
    #[error(
        "the component is built for pushlet:provider@{built}, and this server speaks {CONTRACT}: build it again with the \
         SDK of version {CONTRACT}; wit/README.md says what is different"
    )]
    WrongVersion { built: String },
    #[error("the component exports both codec and session: it must be built for one world")]
    BothWorlds,
    #[error("the component's manifest is not sound: {0}")]
    BadManifest(String),
    #[error("the component's types are not those of the contract: {0}")]
    WrongTypes(String),
    #[error("compiling the component takes {0}")]
    TooCostly(String),
    #[error("the compiler cannot run: {0}")]
    NoCompiler(String),
    #[error("the component does not run: {0}")]
    Broken(#[from] ProviderError),
    /// There is no memory left for its code.
    #[error("{}", .0.message)]
    NoRoom(Box<Error>),
}

impl LoadError {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "component_too_large",
            Self::TooComplex { .. } | Self::TooCostly(_) => "component_too_complex",
            Self::Invalid(_) => "invalid_component",
            Self::ForbiddenImport(_) => "forbidden_import",
            Self::WrongWorld(_) | Self::BothWorlds => "wrong_world",
            Self::WrongVersion { .. } => "wrong_contract_version",
            Self::BadManifest(_) => "invalid_manifest",
            Self::WrongTypes(_) => "wrong_types",
            Self::NoCompiler(_) => "unexpected_error",
            Self::Broken(_) => "broken_component",
            Self::NoRoom(_) => "no_room_for_code",
        }
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        let kind = match &error {
            LoadError::TooLarge { .. } => Kind::TooLarge,
            LoadError::Broken(ProviderError::Exhausted) => Kind::Overloaded,
            LoadError::NoCompiler(why) => return Self::internal(why),
            LoadError::NoRoom(why) => return (**why).clone(),
            _ => Kind::Invalid,
        };
        Self::new(kind, error.code(), error.to_string())
    }
}

/// The contract's interface that a component may import.
const ALLOWED_INTERFACE: &str = "pushlet:provider/types";
/// Packages of WASI 0.2 that a component may import. Anything else makes it refused when it is loaded.
const ALLOWED_PACKAGES: [&str; 6] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// Returns true if a component may import the interface of this name.
pub(super) fn allows_import(name: &str) -> bool {
    let Some((interface, version)) = name.split_once('@') else { return name == ALLOWED_INTERFACE };
    let package = interface.split('/').next().unwrap_or_default();
    interface == ALLOWED_INTERFACE || (ALLOWED_PACKAGES.contains(&package) && version.starts_with("0.2."))
}

/// Imports that a provider may not have, as its author must hear of them: all at once, with what is allowed, and how
/// the known tools leave the rest out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForbiddenImports {
    /// At most [`MOST_NAMED`] of them.
    pub names: Vec<String>,
    /// How many there are beyond those.
    pub others: usize,
}

/// Forbidden imports that an error names.
const MOST_NAMED: usize = 40;

/// Packages that cannot be had, and what the known tools must be given so that a component does without.
const REMEDIES: [(&str, &str); 2] = [
    (
        "wasi:http/",
        "componentize-js and jco: give --disable http --disable fetch-event; Rust: remove the crate that sends \
         requests (the host sends what encode returns)",
    ),
    (
        "wasi:",
        "componentize-py and componentize-qjs: give --stub-wasi; jco: give --backend quickjs --backend-qjs-stub-wasi; \
         Rust: build with cargo for wasm32-wasip2, which imports WASI 0.2",
    ),
];

impl ForbiddenImports {
    /// None: there is none.
    pub(super) fn of<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let named: Vec<String> = names.by_ref().take(MOST_NAMED).map(excerpt).collect();
        (!named.is_empty()).then(|| Self { names: named, others: names.count() })
    }
}

impl fmt::Display for ForbiddenImports {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(&self.names.join(", "))?;
        if self.others > 0 {
            write!(text, " and {} more", self.others)?;
        }
        let allowed = ALLOWED_PACKAGES.join(", ");
        write!(
            text,
            ", which a provider may not have. Allowed are pushlet:provider/types, and {allowed} of version 0.2"
        )?;
        let needs = |package: &str| self.names.iter().any(|name| name.starts_with(package));
        let remedy = REMEDIES.iter().find(|(package, _)| needs(package));
        remedy.map_or(Ok(()), |(_, remedy)| write!(text, ". {remedy}"))
    }
}

pub(super) fn invalid(error: wasmtime::Error) -> LoadError {
    LoadError::Invalid(excerpt(&format!("{error:#}")))
}

/// Returns the beginning of a text that the component has written, in part or in whole.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_allowed_by_package_and_version() {
        for name in ["pushlet:provider/types@1.0.0", "wasi:cli/stdout@0.2.12", "wasi:filesystem/types@0.2.0"]
        {
            assert!(allows_import(name), "{name}");
        }
        for name in [
            "pushlet:provider/codec@1.0.0",
            "wasi:cli/stdout@0.3.0",
            "wasi:cli/stdout",
            "wasi:http/types@0.2.10",
            "wasi:clients/any@0.2.0",
            "env",
        ] {
            assert!(!allows_import(name), "{name}");
        }
    }
}
