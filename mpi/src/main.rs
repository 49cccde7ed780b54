//! The program `onward-mpi`: `onward` for `mpirun` and Slurm.

use std::process::ExitCode;

use onward::kernels::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    onward_mpi::main()
}
