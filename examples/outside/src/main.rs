use onward_outside as _; // links the plugins

fn main() -> std::process::ExitCode {
    onward::cli::main()
}
