//! The program `onward`, and a model for other programs: link the plugins, call the
//! command line.

use std::process::ExitCode;

/// The system's allocator returns large tensors to the kernel after every operation;
/// mimalloc reuses them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    onward::cli::main()
}
