//! Standard error: the log, and what a command says beside its output.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::descriptor::standard_error;
use super::line_buffer::LineBuffer;
use super::standard_output;

/// Time for the last lines at the end of the process. A reader that takes longer does not get them.
const LAST_WORDS: Duration = Duration::from_secs(1);

static BUFFER: LineBuffer = LineBuffer::new();

/// Takes the log's lines, one at each write. Never waits and never fails.
#[derive(Debug, Clone, Copy)]
pub struct LogWriter(());

impl LogWriter {
    /// Starts the thread that writes the log, unless it runs.
    ///
    /// # Errors
    /// The operating system's, if it has no thread for us.
    pub fn start() -> io::Result<Self> {
        BUFFER.start("log", standard_error(), say_dropped)?;
        Ok(Self(()))
    }

    /// Whether the log goes to a terminal.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        standard_error().0.is_terminal()
    }
}

impl io::Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BUFFER.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn say_dropped(lines: u64) {
    tracing::warn!(event = "log_lines_dropped", lines);
}

/// Says something on standard error that is no event of the log. Nobody waits for its reader.
pub fn complain(text: impl Display) {
    // Without a thread there is no other way that waits for nobody.
    if LogWriter::start().is_ok() {
        BUFFER.add(format!("{text}\n").as_bytes());
    }
}

/// Lines of the log that nobody took: the buffer was full, or standard error is closed.
#[must_use]
pub fn log_lines_dropped() -> u64 {
    BUFFER.dropped()
}

/// Waits until everything is written that nobody waited for, at most for a second. For the end of the process.
pub fn write_last_words() {
    let end = Instant::now() + LAST_WORDS;
    for buffer in [&BUFFER, &standard_output::ANNOUNCEMENTS] {
        buffer.flush(end.saturating_duration_since(Instant::now()));
    }
}
