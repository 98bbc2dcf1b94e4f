//! The nouns that every crate uses: the contract with provider components, errors, tenants, notifications.

pub mod contract;
pub mod digest;
pub mod error;
pub mod notification;
pub mod tenant;
pub mod text;

/// The commit that was built, if the build was told (`PUSHLET_COMMIT`).
pub const COMMIT: &str = match option_env!("PUSHLET_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
