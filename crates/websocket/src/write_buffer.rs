//! The frames of one socket that its stream has not written and flushed.

use crate::frame::Frame;
use crate::growth::append;

/// Capacity that is reserved when a second frame is queued: several short frames then need one allocation.
const MERGED_BYTES_MIN: usize = 1024;

/// Frames in the order in which they were queued. A single frame is written from the bytes that it shares
/// with its clones. Several are copied together, so that one system call writes them.
#[derive(Debug)]
pub(crate) struct WriteBuffer {
    content: Content,
    /// How many bytes of `content` have been written.
    written: usize,
    bytes_max: usize,
}

#[derive(Debug)]
enum Content {
    Empty,
    /// Everything is written, but the stream may still hold some of it.
    Unflushed,
    Single(Frame),
    Merged(Vec<u8>),
}

impl WriteBuffer {
    /// An empty buffer, with room until `bytes_max` bytes are unwritten.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            content: Content::Empty,
            written: 0,
            bytes_max,
        }
    }

    /// Whether everything is written and flushed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.unwritten().map_or(0, <[u8]>::len) < self.bytes_max
    }

    /// The bytes to write next; `None` if everything is written.
    #[inline]
    pub(crate) fn unwritten(&self) -> Option<&[u8]> {
        let bytes = match &self.content {
            Content::Empty | Content::Unflushed => return None,
            Content::Single(frame) => frame.as_bytes(),
            Content::Merged(bytes) => bytes,
        };
        bytes.get(self.written..)
    }

    /// Appends a frame, whether or not there is room.
    pub(crate) fn queue(&mut self, frame: Frame) {
        let bytes_max = self.bytes_max + frame.as_bytes().len();
        match &mut self.content {
            Content::Empty | Content::Unflushed => self.content = Content::Single(frame),
            Content::Single(first) => {
                let mut bytes = Vec::with_capacity(MERGED_BYTES_MIN.min(bytes_max));
                let first = first.as_bytes().get(self.written..).unwrap_or_default();
                append(&mut bytes, first, bytes_max);
                append(&mut bytes, frame.as_bytes(), bytes_max);
                self.content = Content::Merged(bytes);
                self.written = 0;
            }
            Content::Merged(bytes) => {
                bytes.drain(..std::mem::take(&mut self.written));
                append(bytes, frame.as_bytes(), bytes_max);
            }
        }
    }

    /// Drops the first `written` bytes of [`WriteBuffer::unwritten`].
    #[inline]
    pub(crate) fn advance(&mut self, written: usize) {
        self.written += written;
        if self.unwritten().is_some_and(<[u8]>::is_empty) {
            self.content = Content::Unflushed;
            self.written = 0;
        }
    }

    /// The stream holds nothing any more of what it has taken.
    #[inline]
    pub(crate) fn flushed(&mut self) {
        if matches!(self.content, Content::Unflushed) {
            self.content = Content::Empty;
        }
    }

    /// The memory that is held now, in bytes.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.content {
            Content::Empty | Content::Unflushed => 0,
            Content::Single(frame) => frame.as_bytes().len(),
            Content::Merged(bytes) => bytes.capacity(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes at most `step_bytes`; whether there was something to write.
    fn write(buffer: &mut WriteBuffer, step_bytes: usize, written: &mut Vec<u8>) -> bool {
        let Some(bytes) = buffer.unwritten() else {
            return false;
        };
        let step_bytes = step_bytes.min(bytes.len());
        written.extend_from_slice(&bytes[..step_bytes]);
        buffer.advance(step_bytes);
        true
    }

    #[test]
    fn frames_are_written_in_order_in_steps_of_any_length() {
        for step_bytes in [1, 2, 5, 1_000] {
            let mut buffer = WriteBuffer::new(1_000);
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            for text in ["first", "second", "", "the fourth"] {
                let frame = Frame::text(text);
                expected.extend_from_slice(frame.as_bytes());
                buffer.queue(frame);
                write(&mut buffer, step_bytes, &mut written);
            }
            while write(&mut buffer, step_bytes, &mut written) {}
            assert!(!buffer.is_empty(), "the stream has not been flushed");
            buffer.flushed();
            assert!(buffer.is_empty());
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn a_single_frame_is_not_copied() {
        let frame = Frame::text("{}");
        let mut buffer = WriteBuffer::new(1_000);
        buffer.queue(frame.clone());
        let unwritten = buffer.unwritten().unwrap();
        assert_eq!(unwritten.as_ptr(), frame.as_bytes().as_ptr());
    }

    #[test]
    fn there_is_room_until_the_bound_is_unwritten() {
        let mut buffer = WriteBuffer::new(1_000);
        assert!(buffer.is_empty() && buffer.has_room());
        for _ in 0..9 {
            buffer.queue(Frame::text(&"x".repeat(98)));
        }
        assert!(buffer.has_room());
        buffer.queue(Frame::text(&"x".repeat(98)));
        assert_eq!(buffer.unwritten().unwrap().len(), 1_000);
        assert!(!buffer.has_room());
        buffer.advance(1);
        assert!(buffer.has_room());
        buffer.advance(999);
        assert!(buffer.has_room());
        assert_eq!(buffer.unwritten(), None);
    }

    #[test]
    fn a_flush_drops_no_frame_that_is_unwritten() {
        let mut buffer = WriteBuffer::new(1_000);
        for frames in 1..3 {
            buffer.queue(Frame::text("1"));
            buffer.flushed();
            assert!(!buffer.is_empty(), "{frames}");
        }
        assert_eq!(buffer.unwritten().unwrap(), b"\x81\x011\x81\x011");
    }

    #[test]
    fn a_full_buffer_has_no_more_capacity_than_the_bound_and_a_frame() {
        let mut buffer = WriteBuffer::new(10_000);
        while buffer.has_room() {
            buffer.queue(Frame::text(&"x".repeat(996)));
        }
        let Content::Merged(bytes) = &buffer.content else {
            panic!("{buffer:?}");
        };
        assert_eq!(bytes.len(), 10_000);
        assert!(bytes.capacity() <= 11_000);
    }

    #[test]
    fn the_second_frame_reserves_room_for_more_but_not_beyond_the_bound() {
        for (bytes_max, capacity) in [
            (10_000, 1_024),
            (1_025, 1_024),
            (100, 104),
            (1_022, 1_024),
            (1_019, 1_023),
        ] {
            let mut buffer = WriteBuffer::new(bytes_max);
            buffer.queue(Frame::text("1"));
            buffer.queue(Frame::text("23"));
            let Content::Merged(bytes) = &buffer.content else {
                panic!("{buffer:?}");
            };
            assert_eq!(bytes.capacity(), capacity, "{bytes_max}");
        }
    }

    #[test]
    fn written_bytes_make_way_for_queued_ones() {
        let mut buffer = WriteBuffer::new(1_000);
        buffer.queue(Frame::text("1"));
        buffer.advance(2);
        buffer.queue(Frame::text("2"));
        assert_eq!(buffer.unwritten().unwrap(), b"1\x81\x012");
        buffer.advance(2);
        buffer.queue(Frame::text("3"));
        assert_eq!(buffer.unwritten().unwrap(), b"\x012\x81\x013");
        let Content::Merged(bytes) = &buffer.content else {
            panic!("{buffer:?}");
        };
        assert_eq!(bytes.len(), 5);
    }
}
