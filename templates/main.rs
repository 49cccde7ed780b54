use my_plugin as _; // links what this crate registers

fn main() -> std::process::ExitCode {
    onward::cli::main()
}
