//! The program `onward`, and a model for other programs: link the plugins, call the
//! command line.

use std::process::ExitCode;

use onward::kernels::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    onward::cli::main()
}
