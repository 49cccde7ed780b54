use my_plugin as _; // links what this crate registers
use onward_plugins as _;

fn main() -> std::process::ExitCode {
    onward::cli::main()
}
