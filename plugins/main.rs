//! The program `onward`, and the model for anybody's own: link the plugins, call the command line.

use std::process::ExitCode;

/// The system's allocator returns large tensors to the kernel after every operation; this one keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    onward::cli::main()
}
