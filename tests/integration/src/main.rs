//! The program under test. Its own executable compiles uploaded components, and a test binary could not.

fn main() -> std::process::ExitCode {
    pushlet::cli::main(std::env::args_os())
}
