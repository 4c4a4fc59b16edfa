//! What the process writes on its standard output and its standard error.
//!
//! Nothing here panics, also when a stream is closed. The service waits for nobody who reads: its lines go through
//! a bounded buffer to a thread of their own, and what does not fit is dropped and counted. A command that only
//! prints does wait for its reader, and fails when the reader has gone.

mod descriptor;
mod line_buffer;
mod log;
mod panics;
mod standard_output;

pub use self::line_buffer::BUFFER_BYTES_MAX;
pub use self::log::{LogWriter, complain, log_lines_dropped, write_last_words};
pub use self::panics::log_panics;
pub use self::standard_output::{OutputError, announce, output_closed, print_line};
