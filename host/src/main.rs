fn main() -> std::process::ExitCode {
    pushlet::cli::main()
}
