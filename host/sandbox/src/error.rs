//! Why a component is not taken, and how a call of one fails.

use std::time::Duration;

use pushlet_model::error::{Error, Kind};

/// The version of `wit/provider.wit` that this host serves.
pub(super) const CONTRACT: &str = "0.1.0";

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
    #[error("the component imports {0}, which a provider may not have")]
    ForbiddenImport(String),
    #[error("the component exports no {0}: it is not built for the world http-provider")]
    WrongWorld(&'static str),
    #[error("the component is built for version {built} of pushlet:provider; this server speaks {CONTRACT}")]
    WrongVersion { built: String },
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
            Self::WrongWorld(_) => "wrong_world",
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

pub(super) fn invalid(error: wasmtime::Error) -> LoadError {
    LoadError::Invalid(excerpt(&format!("{error:#}")))
}

/// Returns the beginning of a text that the component has written, in part or in whole.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(300).collect()
}
