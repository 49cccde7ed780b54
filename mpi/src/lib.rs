//! Onward as several processes, on one machine or many: ranks of MPI.
//!
//! ```sh
//! mpirun -n 2 onward-mpi train progressive --preset mono_forward --data mnist
//! ```
//!
//! Every process holds some of the layers. The guide
//! [`machines`](onward::guide::machines) says how to start it, and when it pays.
//!
//! A program with plugins of its own does the same:
//!
//! ```no_run
//! // use my_rules as _;
//!
//! fn main() -> std::process::ExitCode {
//!     onward_mpi::main()
//! }
//! ```

mod world;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;

use mpi::topology::Communicator;
use mpi::Threading;
use onward::comm::Comm;

use crate::world::World;

/// The command line of `onward` in every process that `mpirun` has started. It is to be
/// called once, from the main thread.
///
/// If one process fails, all end.
pub fn main() -> ExitCode {
    // Before MPI starts threads, since this changes the environment.
    onward::cli::without_threads_of_candle();
    // Messages are sent by threads of their own.
    let started = mpi::initialize_with_threading(Threading::Multiple);
    let Some((universe, threading)) = started else {
        return onward::cli::main(); // MPI is in use already
    };
    let communicator = universe.world();
    if communicator.size() > 1 && threading < Threading::Multiple {
        if communicator.rank() == 0 {
            say("error: this MPI cannot be used by several threads (MPI_THREAD_MULTIPLE)");
        }
        return ExitCode::FAILURE;
    }
    let world = Arc::new(World::of(&communicator));
    // Unwinding would wait for the other processes, which wait for this one.
    let ran = catch_unwind(AssertUnwindSafe(|| onward::cli::main_on(world.clone())));
    let code = ran.unwrap_or(ExitCode::FAILURE);
    if code != ExitCode::SUCCESS && world.ranks() > 1 {
        communicator.abort(1);
    }
    world.finish();
    code
}

/// A message that must not end the program, as printing on a closed stderr would.
fn say(message: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{message}");
}
