//! Started by the harness: `gateway`, the gateway with its codecs linked natively or not; `codec`, one codec alone;
//! `component`, a built-in component's bytes.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use pushlet_bench::failure::{Failure, at};
use pushlet_linked::{codec, native};
use pushlet_sandbox::BUILT_IN;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let part = words.next().unwrap_or_default();
    let done = match part.to_str() {
        Some("gateway") => return native::gateway(words),
        Some("codec") => run_codec(words.next()),
        Some("component") => component(words.next()),
        _ => Err(Failure::new("a part of tests/bench, which starts it itself")),
    };
    done.map_or_else(
        |failure| {
            let _ = writeln!(std::io::stderr(), "pushlet-linked: {failure}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run_codec(orders: Option<OsString>) -> Result<(), Failure> {
    let orders = orders.unwrap_or_default();
    let micros = codec::run(serde_json::from_slice(orders.as_encoded_bytes()).map_err(at("orders"))?)?;
    writeln!(std::io::stdout(), "{micros}").map_err(at("codec"))
}

fn component(name: Option<OsString>) -> Result<(), Failure> {
    let found = BUILT_IN.iter().find(|(built_in, _)| name.as_deref().is_some_and(|name| name == *built_in));
    let (_, bytes) = found.ok_or_else(|| Failure::new("there is no such component"))?;
    std::io::stdout().write_all(bytes).map_err(at("component"))
}
