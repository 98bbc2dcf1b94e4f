pub mod contract;
pub mod credential;
