//! The program `onward-mpi`: `onward` for `mpirun` and Slurm.

use std::process::ExitCode;

/// As in the program `onward`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    onward_mpi::main()
}
