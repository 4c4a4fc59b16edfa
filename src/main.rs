//! The program: runs the subcommand that the arguments name, and turns its result into an exit code.

#![warn(clippy::disallowed_methods)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

use std::process::ExitCode;

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    cli::conclude(cli::main(std::env::args_os().collect()))
}

/// Connections come and go, and take their memory in small pieces. Huge pages would give it back late, and 2 MiB
/// are zeroed at once while events wait.
fn without_huge_pages() {
    // Fails on a kernel that has no huge pages.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
