//! A client's frames and messages, from its bytes (RFC 6455, sections 5.2 to 5.7).
//!
//! Pure: no I/O, no clock. The bytes may come in any pieces. The decoder holds nothing while the client
//! has no message under way, and never more than [`Decoder::held_bytes_max`]. It fails with the
//! [`Violation`], never by panicking, whatever the bytes.

use crate::frame::{CONTROL_BYTES_MAX, FINAL, Frame, LENGTH_IN_2, LENGTH_IN_8, Opcode};
use crate::growth::append;

/// The longest header: two bytes, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

/// Bits of a header's first byte.
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
/// Bits of a header's second byte.
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// A client's frame, or the message that it has completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A fragment of a message other than its last.
    Fragment,
    /// A ping, with the pong that answers it.
    Ping(Frame),
    /// A pong.
    Pong,
    /// A close frame, with the close frame that answers it.
    Close(Frame),
}

/// How a client has violated the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A malformed frame, or one that may not come at this point.
    #[error("a frame that RFC 6455 does not allow at this point")]
    Protocol,
    /// A frame or a message longer than the limit.
    #[error("a frame or a message longer than the limit")]
    TooBig,
    /// A text message or a close reason that is not UTF-8.
    #[error("a text message or a close reason that is not UTF-8")]
    NotUtf8,
}

/// Decodes one client's bytes.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    /// `None` while no bytes are held, as for most clients most of the time.
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// What has been fed and not been dropped.
    input: Vec<u8>,
    /// How many bytes of `input` have been decoded.
    decoded: usize,
    /// The message whose last fragment has not come.
    message: Option<Fragments>,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    bytes: Vec<u8>,
    /// How many bytes of a text are known to be UTF-8.
    valid: usize,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Of the header itself, in bytes.
    length: usize,
    payload_bytes: usize,
}

impl Decoder {
    /// A decoder of frames and messages with at most `message_bytes_max` bytes of payload.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            held: None,
        }
    }

    /// The most memory that a decoder holds, in bytes, if each [`Decoder::feed`] brings at most
    /// `piece_bytes` and [`Decoder::decode`] is called until `None` before the next one.
    #[must_use]
    pub fn held_bytes_max(message_bytes_max: usize, piece_bytes: usize) -> usize {
        let input = frame_bytes_max(message_bytes_max) + piece_bytes;
        input + message_bytes_max + size_of::<Held>()
    }

    /// Takes the bytes that have been read.
    pub fn feed(&mut self, piece: &[u8]) {
        let held = self.held.get_or_insert_default();
        held.input.drain(..std::mem::take(&mut held.decoded));
        append(
            &mut held.input,
            piece,
            frame_bytes_max(self.message_bytes_max),
        );
    }

    /// The next complete frame; `None` until more bytes are fed. A decoder that has returned a
    /// [`Violation`] must not be used again.
    #[inline]
    pub fn decode(&mut self) -> Result<Option<Incoming>, Violation> {
        if self.held.is_none() {
            return Ok(None);
        }
        self.decode_held()
    }

    /// The memory that is held now, in bytes.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let Some(held) = &self.held else { return 0 };
        let message = held.message.as_ref();
        let message_bytes = message.map_or(0, |message| message.bytes.capacity());
        size_of::<Held>() + held.input.capacity() + message_bytes
    }

    fn decode_held(&mut self) -> Result<Option<Incoming>, Violation> {
        let Some(held) = &mut self.held else {
            return Ok(None);
        };
        let input = &mut held.input[held.decoded..];
        let Some(header) = Header::parse(input)? else {
            self.release();
            return Ok(None);
        };
        let so_far = held.message.as_ref().map(|message| &message.bytes);
        let message_bytes = match header.opcode {
            Opcode::Continuation => so_far
                .map_or(0, Vec::len)
                .saturating_add(header.payload_bytes),
            _ => header.payload_bytes,
        };
        if !header.opcode.is_control() && message_bytes > self.message_bytes_max {
            return Err(Violation::TooBig);
        }
        header.check_order(held.message.is_some())?;
        let frame_bytes = header.length + header.payload_bytes;
        let Some(payload) = input.get_mut(header.length..frame_bytes) else {
            return Ok(None);
        };
        for (byte, mask) in payload.iter_mut().zip(header.mask.iter().cycle()) {
            *byte ^= mask;
        }
        held.decoded += frame_bytes;
        let incoming = complete(header, payload, &mut held.message, self.message_bytes_max)?;
        Ok(Some(incoming))
    }

    /// Frees the input if all of it has been decoded.
    fn release(&mut self) {
        let Some(held) = &mut self.held else { return };
        if held.decoded < held.input.len() {
            return;
        }
        if held.message.is_none() {
            self.held = None;
        } else {
            (held.input, held.decoded) = (Vec::new(), 0);
        }
    }
}

/// The longest frame that is not a violation, with its header.
fn frame_bytes_max(message_bytes_max: usize) -> usize {
    HEADER_BYTES_MAX + message_bytes_max.max(CONTROL_BYTES_MAX)
}

impl Header {
    /// `None` while it is incomplete.
    fn parse(input: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        let opcode = Opcode::parse(first & OPCODE).ok_or(Violation::Protocol)?;
        if first & RESERVED != 0 || second & MASKED == 0 {
            return Err(Violation::Protocol);
        }
        let (length, rest) = match second & LENGTH {
            LENGTH_IN_2 => match rest.split_first_chunk() {
                Some((length, rest)) => (u16::from_be_bytes(*length).into(), rest),
                None => return Ok(None),
            },
            LENGTH_IN_8 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (length.into(), rest),
        };
        let Some((mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Self {
            is_final: first & FINAL != 0,
            opcode,
            mask: *mask,
            length: input.len() - rest.len(),
            payload_bytes: usize::try_from(length).map_err(|_| Violation::TooBig)?,
        }))
    }

    /// A control frame is short and not fragmented. A continuation comes only inside a message, and a new
    /// message only outside of one.
    fn check_order(self, in_message: bool) -> Result<(), Violation> {
        let is_allowed = if self.opcode.is_control() {
            self.is_final && self.payload_bytes <= CONTROL_BYTES_MAX
        } else {
            (self.opcode == Opcode::Continuation) == in_message
        };
        is_allowed.then_some(()).ok_or(Violation::Protocol)
    }
}

/// What a complete, unmasked frame brings.
fn complete(
    header: Header,
    payload: &[u8],
    message: &mut Option<Fragments>,
    message_bytes_max: usize,
) -> Result<Incoming, Violation> {
    match header.opcode {
        Opcode::Ping => Ok(Incoming::Ping(Frame::new(Opcode::Pong, payload))),
        Opcode::Pong => Ok(Incoming::Pong),
        Opcode::Close => answer_to_close(payload).map(Incoming::Close),
        opcode => {
            let fragments = message.get_or_insert_with(|| Fragments {
                is_text: opcode == Opcode::Text,
                bytes: Vec::new(),
                valid: 0,
            });
            append(&mut fragments.bytes, payload, message_bytes_max);
            fragments.validate(header.is_final)?;
            if !header.is_final {
                return Ok(Incoming::Fragment);
            }
            let whole = message.take();
            whole.map_or(Err(Violation::Protocol), Fragments::into_message)
        }
    }
}

impl Fragments {
    /// Reports a text that is not UTF-8 at the fragment that makes it so, not at the end of the message.
    /// A character may be split between two fragments.
    fn validate(&mut self, is_final: bool) -> Result<(), Violation> {
        if !self.is_text {
            return Ok(());
        }
        match str::from_utf8(&self.bytes[self.valid..]) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_none() && !is_final => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    fn into_message(self) -> Result<Incoming, Violation> {
        if self.is_text {
            let text = String::from_utf8(self.bytes).map_err(|_| Violation::NotUtf8)?;
            Ok(Incoming::Text(text))
        } else {
            Ok(Incoming::Binary(self.bytes))
        }
    }
}

/// Echoes the payload of a close frame, if its code may be sent (RFC 6455, 7.4).
fn answer_to_close(payload: &[u8]) -> Result<Frame, Violation> {
    match payload.split_first_chunk() {
        None if payload.is_empty() => {}
        Some((code, reason)) => {
            if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::Protocol);
            }
            str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
        }
        None => return Err(Violation::Protocol),
    }
    Ok(Frame::new(Opcode::Close, payload))
}

#[cfg(test)]
mod tests;
