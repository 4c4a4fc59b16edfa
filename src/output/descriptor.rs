//! Writing to a standard stream.

use std::io::{self, Stderr, Stdout};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

/// A standard stream, written to without the lock of the standard library. A thread that waits for the stream's
/// reader would hold that lock.
pub(super) struct Descriptor<S>(pub(super) S);

/// Standard output.
#[expect(clippy::disallowed_methods, reason = "it is written to here")]
pub(super) fn standard_output() -> Descriptor<Stdout> {
    Descriptor(io::stdout())
}

/// Standard error.
#[expect(clippy::disallowed_methods, reason = "it is written to here")]
pub(super) fn standard_error() -> Descriptor<Stderr> {
    Descriptor(io::stderr())
}

impl<S: AsFd> io::Write for Descriptor<S> {
    /// Waits until the stream takes some of the bytes, also if the stream does not block: whoever shares it may
    /// have changed that.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};

    use super::*;

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let bytes = vec![b'x'; 1 << 20];
        let length = bytes.len();
        let writing = std::thread::spawn(move || Descriptor(writer).write_all(&bytes));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), length);
        writing.join().unwrap().unwrap();
    }
}
