//! Pushlet under fire. A [`peer`] answers, refuses, stalls, resets, restarts and cuts at random and keeps a
//! [`ledger`] of what it processed; what the callers of the gateway were told must agree with it.
//!
//! The peer is written from RFC 9113, RFC 7541 and Apple's and Google's documents and shares no code with the
//! gateway, of which this crate uses only what every embedder could: configuration, registration, sending.

pub mod caller;
pub mod costs;
pub mod flat;
pub mod fleet;
pub mod hang;
pub mod hostile;
pub mod ledger;
pub mod node;
pub mod peer;
pub mod proxy;
pub mod queue;
pub mod run;
