//! The integration tests: one binary, one module per subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod classic;
mod guests;
mod reasons;
mod structure;
mod world;
