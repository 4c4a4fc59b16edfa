//! The frames that a server sends (RFC 6455, section 5.2).
//!
//! A server's frames are not masked, so a frame is built once and every client of it gets the same bytes.

use std::sync::Arc;

/// The longest payload of a control frame (RFC 6455, 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;

/// Bits of a header's first byte.
pub(crate) const FINAL: u8 = 0x80;
/// Values of the length in a header's second byte: the length follows in 2 bytes, or in 8.
pub(crate) const LENGTH_IN_2: u8 = 126;
pub(crate) const LENGTH_IN_8: u8 = 127;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    /// `None` for a reserved opcode.
    pub(crate) fn parse(bits: u8) -> Option<Self> {
        let known = [
            Self::Continuation,
            Self::Text,
            Self::Binary,
            Self::Close,
            Self::Ping,
            Self::Pong,
        ];
        known.into_iter().find(|opcode| *opcode as u8 == bits)
    }

    pub(crate) fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// A frame as it goes over the wire. Clones share its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// A text message.
    #[must_use]
    pub fn text(payload: &str) -> Self {
        Self::new(Opcode::Text, payload.as_bytes())
    }

    /// A binary message.
    #[must_use]
    pub fn binary(payload: &[u8]) -> Self {
        Self::new(Opcode::Binary, payload)
    }

    /// A text frame whose payload is the one text and the other.
    #[must_use]
    pub fn text_of_two(first: &str, second: &str) -> Self {
        Self::of_parts(Opcode::Text, [first.as_bytes(), second.as_bytes()])
    }

    /// A ping without a payload.
    #[must_use]
    pub fn ping() -> Self {
        Self::new(Opcode::Ping, &[])
    }

    /// A close frame with a code (RFC 6455, 7.4). A reason longer than 123 bytes does not fit and is left out.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        if payload.len() + reason.len() <= CONTROL_BYTES_MAX {
            payload.extend_from_slice(reason.as_bytes());
        }
        Self::new(Opcode::Close, &payload)
    }

    pub(crate) fn new(opcode: Opcode, payload: &[u8]) -> Self {
        Self::of_parts(opcode, [payload, &[]])
    }

    fn of_parts(opcode: Opcode, [first, second]: [&[u8]; 2]) -> Self {
        let payload_bytes = first.len() + second.len();
        let mut header = [FINAL | opcode as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let length = payload_bytes as u64;
        let header_bytes = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..LENGTH_IN_2), _) => {
                header[1] = length;
                2
            }
            (_, Ok(length)) => {
                header[1] = LENGTH_IN_2;
                header[2..4].copy_from_slice(&length.to_be_bytes());
                4
            }
            _ => {
                header[1] = LENGTH_IN_8;
                header[2..].copy_from_slice(&length.to_be_bytes());
                10
            }
        };
        // Zeros first: so a frame costs one allocation, and its bytes are copied once.
        let mut frame: Arc<[u8]> = (0..header_bytes + payload_bytes).map(|_| 0).collect();
        if let Some(bytes) = Arc::get_mut(&mut frame) {
            let (head, rest) = bytes.split_at_mut(header_bytes);
            head.copy_from_slice(&header[..header_bytes]);
            let (head, rest) = rest.split_at_mut(first.len());
            head.copy_from_slice(first);
            rest.copy_from_slice(second);
        }
        Self(frame)
    }

    /// The frame with its header.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes after the header.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &[u8] {
        let header_bytes = match self.0.get(1) {
            Some(&LENGTH_IN_2) => 4,
            Some(&LENGTH_IN_8) => 10,
            _ => 2,
        };
        self.0.get(header_bytes..).unwrap_or_default()
    }

    /// The payload as text; empty if it is not UTF-8.
    #[must_use]
    #[inline]
    pub fn as_text(&self) -> &str {
        str::from_utf8(self.payload()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_shortest_header_and_its_payload() {
        for (length, header) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (508, &[0x81, 126, 0x01, 0xfc]),
            (509, &[0x81, 126, 0x01, 0xfd]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let text = "x".repeat(length);
            let frame = Frame::text(&text);
            assert_eq!(frame.as_bytes(), [header, text.as_bytes()].concat());
            assert_eq!(frame.payload(), text.as_bytes());
            assert_eq!(frame.as_text(), text);
        }
    }

    #[test]
    fn each_kind_of_frame_has_its_opcode() {
        assert_eq!(Frame::text("{}").as_bytes(), b"\x81\x02{}");
        assert_eq!(Frame::binary(&[7]).as_bytes(), [0x82, 1, 7]);
        assert_eq!(Frame::ping().as_bytes(), [0x89, 0]);
        assert_eq!(
            Frame::close(1012, "restart").as_bytes(),
            b"\x88\x09\x03\xf4restart"
        );
    }

    #[test]
    fn a_reason_that_does_not_fit_is_left_out() {
        let longest = "x".repeat(123);
        assert_eq!(
            Frame::close(1000, &longest).payload(),
            [b"\x03\xe8", longest.as_bytes()].concat()
        );
        assert_eq!(Frame::close(1000, &"x".repeat(124)).payload(), b"\x03\xe8");
    }

    #[test]
    fn a_payload_that_is_not_utf_8_is_no_text() {
        assert_eq!(Frame::binary(&[0xff]).as_text(), "");
    }

    #[test]
    fn opcodes_of_control_frames_begin_with_close() {
        let is_control = |bits| Opcode::parse(bits).map(Opcode::is_control);
        for bits in [0x0, 0x1, 0x2] {
            assert_eq!(is_control(bits), Some(false), "{bits:#x}");
        }
        for bits in [0x8, 0x9, 0xa] {
            assert_eq!(is_control(bits), Some(true), "{bits:#x}");
        }
        for bits in [0x3, 0x7, 0xb, 0xf] {
            assert_eq!(is_control(bits), None, "{bits:#x}");
        }
    }

    #[test]
    fn clones_share_their_bytes() {
        let frame = Frame::text("{}");
        assert_eq!(frame.as_bytes().as_ptr(), frame.clone().as_bytes().as_ptr());
    }
}
