//! The `flywheel` command. Everything is in the library; this only starts it.

use std::process::ExitCode;

/// Returns freed memory to the system and is quicker than the system's allocator with many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    flywheel::cli::main()
}
