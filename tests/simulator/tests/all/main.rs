//! The simulator from outside, through clients that share no code with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod apns;
mod apns_auth;
mod apns_channels;
mod apns_streams;
mod client;
mod control;
mod credentials;
mod fcm;
mod gcm;
mod oauth;
