//! Pushlet: an HTTP API in front of push services, each spoken by a sandboxed WebAssembly component.

pub mod account;
pub mod cli;
pub mod config;
pub mod contract;
pub mod credential;
pub mod digest;
pub mod error;
pub mod fair;
pub mod gateway;
pub mod http;
pub mod log;
pub mod notification;
pub mod provider;
pub mod registry;
pub mod server;
pub mod simulated;
pub mod start;
pub mod telemetry;
pub mod tenant;
pub mod tenants;
pub mod transport;
pub mod warnings;
pub mod web;
