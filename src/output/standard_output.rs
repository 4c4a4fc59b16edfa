//! Standard output.

use std::fmt::Display;
use std::future::pending;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::descriptor::standard_output;
use super::line_buffer::LineBuffer;

pub(super) static ANNOUNCEMENTS: LineBuffer = LineBuffer::new();

/// Why a command cannot print.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read the output has gone, as `head` does after its lines: the command is at its end.
    #[error("standard output is closed")]
    Closed,
    /// Standard output does not take what is written, such as a file on a full disk.
    #[error("cannot write to standard output: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// Prints a line of a command's output. Waits for its reader.
///
/// # Errors
/// [`OutputError`]; a command ends by either.
pub fn print_line(text: impl Display) -> Result<(), OutputError> {
    let line = format!("{text}\n");
    Ok(standard_output().write_all(line.as_bytes())?)
}

/// Prints a line of the service's for whoever starts it. The service does not wait for a reader, and does not need
/// one.
///
/// # Errors
/// The operating system's, if it has no thread for us.
pub fn announce(text: impl Display) -> io::Result<()> {
    let ignore = |_| ();
    ANNOUNCEMENTS.start("announcements", standard_output(), ignore)?;
    ANNOUNCEMENTS.add(format!("{text}\n").as_bytes());
    Ok(())
}

/// Waits until nobody can read standard output any more. Without this, a command that waits for something to print
/// would stay although its reader has gone.
pub async fn output_closed() {
    let (closed, hung_up) = oneshot::channel();
    let watching = std::thread::Builder::new().spawn(move || {
        if watch(&standard_output().0) {
            // The command may have ended by itself.
            let _ = closed.send(());
        }
    });
    if watching.is_err() || hung_up.await.is_err() {
        // It is then noticed at the next line.
        pending::<()>().await;
    }
}

/// Returns true when nobody can read the stream any more, false if that cannot be known.
fn watch(stream: &impl AsFd) -> bool {
    loop {
        // Errors and hang-ups are reported without being asked for.
        let mut polled = [PollFd::new(stream, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(_) => {
                return polled[0]
                    .revents()
                    .intersects(PollFlags::ERR | PollFlags::HUP);
            }
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
