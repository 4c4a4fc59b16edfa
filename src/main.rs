//! The command line: reads arguments, runs one subcommand, turns its end into an exit code.

use std::process::ExitCode;

mod cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    match cli::main(std::env::args_os().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            cli::exit_code(&error)
        }
    }
}

/// Memory is taken in small pieces by connections that come and go. In huge pages it comes back late, counts
/// 2 MiB at a time, and is zeroed at once while events wait (`make bench`: `idle_bytes`, `handshake`).
fn without_huge_pages() {
    // A kernel that does not know them has none.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
