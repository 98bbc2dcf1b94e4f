//! The tokens that authenticate exchanges: signed here, or fetched from a token endpoint.

mod access_tokens;
pub(crate) mod authorizer;
mod cache;
pub(crate) mod error;
pub(crate) mod handle;
mod jwt;
pub(crate) mod memo;
pub(crate) mod moment;
mod provider_tokens;
mod signing;
pub(crate) mod token_client;
mod token_response;
