//! Measures Pushlet: `cargo run --profile dist -p pushlet-bench`.

pub mod credentials;
pub mod failure;
pub mod gateway;
pub mod guard;
pub mod linked;
pub mod load;
pub mod process;
pub mod relay;
pub mod run;
pub mod sink;

/// Prints a part of the report.
pub fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}
