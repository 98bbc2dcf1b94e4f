//! The integration tests: one binary, one module per subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod built_in;
mod cases;
mod causes;
mod classic;
mod commands;
mod credentials;
mod error_codes;
mod exchanges;
mod fields;
mod file_circles;
mod guests;
mod harness;
mod openapi;
mod program;
mod promises;
mod reasons;
mod reliability;
mod routes;
mod secrets;
mod sockets;
mod structure;
mod targets;
mod tenants;
mod upload;
mod v1;
mod v1_apns;
mod v1_applications;
mod v1_idempotency;
mod v1_requests;
mod v1_streams;
mod watch;
