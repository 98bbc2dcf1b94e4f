fn main() -> std::process::ExitCode {
    pushlet::cli::main(std::env::args_os())
}
