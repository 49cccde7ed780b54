use my_plugin as _; // links the plugins of this crate
use onward::kernels::Allocator;

// Training is faster with it than with the system's.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> std::process::ExitCode {
    onward::cli::main()
}
