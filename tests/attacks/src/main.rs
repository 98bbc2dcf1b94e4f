//! The program under attack: the gateway itself, built here so that the tests know where it is.

fn main() -> std::process::ExitCode {
    pushlet::cli::main(std::env::args_os())
}
