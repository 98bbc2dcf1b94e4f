//! What must hold for any input.
//!
//! Each property takes bytes that somebody chose, makes an input of them, and panics if what comes out is not
//! as it must be. `tests/` calls them with random bytes on every run; `tests/fuzz` lets a fuzzer choose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod contract;
mod credentials;
mod manifests;
mod providers;
mod requests;

pub use answers::{encoded, replies};
pub use credentials::credential;
pub use manifests::manifest;
pub use providers::{decode, encode, receive};
pub use requests::request;

/// A property by its name.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const PROPERTIES: &[Property] = &[
    ("credential", credential),
    ("manifest", manifest),
    ("encoded", encoded),
    ("replies", replies),
    ("encode", encode),
    ("decode", decode),
    ("receive", receive),
    ("request", request),
];
