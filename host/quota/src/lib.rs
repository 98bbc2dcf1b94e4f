//! Who pays, and who comes next: accounts for the memory and processor time of each tenant, and fair shares of
//! tables and permits.

pub mod account;
pub mod fair;
mod rate_limiter;

pub use rate_limiter::RateLimiter;
