//! The nouns that every crate uses: the contract with provider components, errors, tenants, notifications.

pub mod contract;
pub mod digest;
pub mod error;
pub mod notification;
pub mod tenant;
pub mod text;
