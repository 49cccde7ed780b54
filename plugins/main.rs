//! The program `onward`, and a model for other programs: link the plugins, call the
//! command line.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use onward::kernels::Counting;

/// The system's allocator returns large tensors to the kernel after every operation;
/// mimalloc reuses them.
#[global_allocator]
static ALLOCATOR: Counting<MiMalloc> = Counting(MiMalloc);

fn main() -> ExitCode {
    onward::cli::main()
}
