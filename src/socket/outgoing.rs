//! What waits to be written to one socket.

use crate::frame::{Frame, append};

/// Room that is made for several frames, so that few of them take it once.
const SEVERAL_BYTES_MIN: usize = 1024;

/// Frames on their way to the kernel. One by itself is written from the bytes that it shares with all who
/// get it; several are copied together, so that one write takes them.
#[derive(Debug)]
pub(super) struct Outgoing {
    waiting: Waiting,
    /// How much of it has been written.
    written: usize,
    bytes_max: usize,
}

#[derive(Debug)]
enum Waiting {
    Nothing,
    One(Frame),
    Several(Vec<u8>),
}

impl Outgoing {
    /// Has room until this many bytes wait.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            waiting: Waiting::Nothing,
            written: 0,
            bytes_max,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.waiting, Waiting::Nothing)
    }

    pub(super) fn has_room(&self) -> bool {
        self.unwritten().map_or(0, <[u8]>::len) < self.bytes_max
    }

    /// What is to be written next; `None` when nothing waits.
    pub(super) fn unwritten(&self) -> Option<&[u8]> {
        let bytes = match &self.waiting {
            Waiting::Nothing => return None,
            Waiting::One(frame) => frame.as_bytes(),
            Waiting::Several(bytes) => bytes,
        };
        bytes.get(self.written..)
    }

    pub(super) fn queue(&mut self, frame: Frame) {
        let longest = self.bytes_max + frame.as_bytes().len();
        match &mut self.waiting {
            Waiting::Nothing => self.waiting = Waiting::One(frame),
            Waiting::One(first) => {
                let mut bytes = Vec::with_capacity(SEVERAL_BYTES_MIN.min(longest));
                let first = first.as_bytes().get(self.written..).unwrap_or_default();
                append(&mut bytes, first, longest);
                append(&mut bytes, frame.as_bytes(), longest);
                self.waiting = Waiting::Several(bytes);
                self.written = 0;
            }
            Waiting::Several(bytes) => {
                bytes.drain(..std::mem::take(&mut self.written));
                append(bytes, frame.as_bytes(), longest);
            }
        }
    }

    /// So many bytes of [`Outgoing::unwritten`] have been written.
    pub(super) fn advance(&mut self, written: usize) {
        self.written += written;
        if self.unwritten().is_some_and(<[u8]>::is_empty) {
            self.waiting = Waiting::Nothing;
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_is_written_in_its_order_however_little_at_a_time() {
        for step in [1, 2, 5, 1_000] {
            let mut outgoing = Outgoing::new(1_000);
            let mut written = Vec::new();
            let mut expected = Vec::new();
            let mut write = |outgoing: &mut Outgoing| {
                let Some(bytes) = outgoing.unwritten() else {
                    return false;
                };
                let step = step.min(bytes.len());
                written.extend_from_slice(&bytes[..step]);
                outgoing.advance(step);
                true
            };
            for text in ["first", "second", "", "the fourth"] {
                let frame = Frame::text(text);
                expected.extend_from_slice(frame.as_bytes());
                outgoing.queue(frame);
                write(&mut outgoing);
            }
            while write(&mut outgoing) {}
            assert!(outgoing.is_empty());
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn there_is_room_until_the_bound_and_never_more_memory_than_that_and_a_frame() {
        let frame = Frame::text(&"x".repeat(98));
        let mut outgoing = Outgoing::new(1_000);
        let mut queued = 0;
        while outgoing.has_room() {
            outgoing.queue(frame.clone());
            queued += 1;
        }
        assert_eq!(queued, 10);
        let Waiting::Several(bytes) = &outgoing.waiting else {
            panic!("{outgoing:?}");
        };
        assert!(bytes.capacity() <= 1_100);
        outgoing.advance(1);
        assert!(outgoing.has_room());
    }
}
