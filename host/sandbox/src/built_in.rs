//! The providers that are part of this program.

/// Name and component file of each built-in provider, made by `build.rs` from `providers/`.
pub const BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));
