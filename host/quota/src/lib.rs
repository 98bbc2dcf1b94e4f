//! How much of this process each tenant may use: accounts for memory and processor time, rate limits, and fair shares of
//! caches and permits.

pub mod account;
pub mod fair;
mod rate_limiter;

pub use rate_limiter::RateLimiter;
