//! The binary: everything is in the library of the same name.

use std::process::ExitCode;

/// A request allocates some dozen small things: glibc spends a tenth of a warm manifest on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shoal::run()
}
