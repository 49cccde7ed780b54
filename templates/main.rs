use my_plugin as _; // links the plugins of this crate

fn main() -> std::process::ExitCode {
    onward::cli::main()
}
