use onward::kernels::Allocator;
use onward_outside as _; // links the plugins

// Training is faster with it than with the system's.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> std::process::ExitCode {
    onward::cli::main()
}
