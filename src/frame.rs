//! WebSocket frames as a server writes and reads them (RFC 6455, section 5).
//!
//! Pure: no I/O, no clock, no user, no event. A server's frames are not masked, so one is made once and
//! its bytes go to everyone. A client's are decoded from whatever pieces they come in: nothing is held
//! while nothing is on its way, and never more than [`Decoder::held_bytes_max`]. Fails by saying which
//! rule was broken, never by panicking, whatever the bytes.

use std::sync::Arc;

/// A control frame's longest payload.
const CONTROL_BYTES_MAX: usize = 125;
/// A header's longest form: two bytes, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

/// A short frame, as nearly all events are.
const SHORT_BYTES: usize = 512;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Lengths that say that the length follows in two bytes, or in eight.
const LENGTH_IN_2: u8 = 126;
const LENGTH_IN_8: u8 = 127;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn of(byte: u8) -> Option<Self> {
        let known = [
            Self::Continuation,
            Self::Text,
            Self::Binary,
            Self::Close,
            Self::Ping,
            Self::Pong,
        ];
        known.into_iter().find(|opcode| *opcode as u8 == byte)
    }

    fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// A frame for clients, as it goes over the wire. A clone shares the bytes.
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

    /// A ping without a payload.
    #[must_use]
    pub fn ping() -> Self {
        Self::new(Opcode::Ping, &[])
    }

    /// The end, and why. A reason that is too long for the frame is left out.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        if payload.len() + reason.len() <= CONTROL_BYTES_MAX {
            payload.extend_from_slice(reason.as_bytes());
        }
        Self::new(Opcode::Close, &payload)
    }

    fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let mut header = [FINAL | opcode as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let length = payload.len() as u64;
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
        let header = &header[..header_bytes];
        // Most are short: put together on the stack they cost one allocation.
        let mut short = [0; SHORT_BYTES];
        match short.get_mut(..header_bytes + payload.len()) {
            Some(short) => {
                let (head, rest) = short.split_at_mut(header_bytes);
                head.copy_from_slice(header);
                rest.copy_from_slice(payload);
                Self(Arc::from(&*short))
            }
            None => Self([header, payload].concat().into()),
        }
    }

    /// What is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the frame carries.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let header_bytes = match self.0.get(1) {
            Some(&LENGTH_IN_2) => 4,
            Some(&LENGTH_IN_8) => 10,
            _ => 2,
        };
        self.0.get(header_bytes..).unwrap_or_default()
    }

    /// The text that a text frame carries.
    #[must_use]
    pub fn as_text(&self) -> &str {
        str::from_utf8(self.payload()).unwrap_or_default()
    }
}

/// What a client has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A part of a message, and not its last.
    Fragment,
    /// A ping, with the pong that answers it.
    Ping(Frame),
    /// A pong.
    Pong,
    /// The end, with the frame that answers it.
    Close(Frame),
}

/// What a client must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame that the protocol has not.
    #[error("no frame of RFC 6455, or one out of its place")]
    Protocol,
    /// A frame or a message longer than admitted.
    #[error("a frame or a message longer than admitted")]
    TooBig,
    /// A text or a reason that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
}

/// A client's frames, from its bytes.
#[derive(Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    /// Nothing for a client that says nothing: most of them, most of the time.
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// What has come and is no whole frame yet, or has not been asked for.
    input: Vec<u8>,
    /// How much of it has been decoded.
    decoded: usize,
    /// The message whose last fragment has not come.
    message: Option<Fragments>,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    bytes: Vec<u8>,
    /// How much of a text is known to be UTF-8.
    valid: usize,
}

/// A frame's header.
#[derive(Debug, Clone, Copy)]
struct Header {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Of the header itself.
    bytes: usize,
    payload_bytes: usize,
}

impl Decoder {
    /// Admits frames and messages of this many bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            held: None,
        }
    }

    /// What one may hold between two calls, when at most `piece_bytes` come with each
    /// [`Decoder::feed`] and all that is whole is taken before the next.
    #[must_use]
    pub fn held_bytes_max(message_bytes_max: usize, piece_bytes: usize) -> usize {
        let input = HEADER_BYTES_MAX + message_bytes_max.max(CONTROL_BYTES_MAX) + piece_bytes;
        input + message_bytes_max + size_of::<Held>()
    }

    /// Takes what has come.
    pub fn feed(&mut self, piece: &[u8]) {
        let held = self.held.get_or_insert_default();
        held.input.drain(..std::mem::take(&mut held.decoded));
        let longest = HEADER_BYTES_MAX + self.message_bytes_max.max(CONTROL_BYTES_MAX);
        append(&mut held.input, piece, longest);
    }

    /// The next frame that has come whole; `None` when more has to come. After a [`Violation`] there is
    /// no next one.
    pub fn decode(&mut self) -> Result<Option<Incoming>, Violation> {
        let Some(held) = &mut self.held else {
            return Ok(None);
        };
        let input = &mut held.input[held.decoded..];
        let Some(header) = Header::parse(input)? else {
            self.let_go();
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
        header.check_place(held.message.is_some())?;
        let frame_bytes = header.bytes + header.payload_bytes;
        let Some(payload) = input.get_mut(header.bytes..frame_bytes) else {
            return Ok(None);
        };
        for (byte, mask) in payload.iter_mut().zip(header.mask.iter().cycle()) {
            *byte ^= mask;
        }
        held.decoded += frame_bytes;
        let incoming = take(header, payload, &mut held.message, self.message_bytes_max)?;
        Ok(Some(incoming))
    }

    /// Nothing is held for a client that says nothing.
    fn let_go(&mut self) {
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

impl Header {
    /// `None` when it has not come whole.
    fn parse(input: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        let opcode = Opcode::of(first & OPCODE).ok_or(Violation::Protocol)?;
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
            bytes: input.len() - rest.len(),
            payload_bytes: usize::try_from(length).map_err(|_| Violation::TooBig)?,
        }))
    }

    /// A control frame is short and whole, and between a message's fragments there is no other message.
    fn check_place(self, in_message: bool) -> Result<(), Violation> {
        let in_place = if self.opcode.is_control() {
            self.is_final && self.payload_bytes <= CONTROL_BYTES_MAX
        } else {
            (self.opcode == Opcode::Continuation) == in_message
        };
        in_place.then_some(()).ok_or(Violation::Protocol)
    }
}

/// What a frame that is in its place says.
fn take(
    header: Header,
    payload: &[u8],
    message: &mut Option<Fragments>,
    message_bytes_max: usize,
) -> Result<Incoming, Violation> {
    match header.opcode {
        Opcode::Ping => Ok(Incoming::Ping(Frame::new(Opcode::Pong, payload))),
        Opcode::Pong => Ok(Incoming::Pong),
        Opcode::Close => close(payload).map(Incoming::Close),
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
    /// Finds a text that is no UTF-8 with the fragment in which it ceases to be; a character may be
    /// divided between two.
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

/// The answer to a close frame with this payload.
fn close(payload: &[u8]) -> Result<Frame, Violation> {
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

/// Grows as a `Vec` does, but not past what may come: a bound twice as large would be none.
pub(crate) fn append(buffer: &mut Vec<u8>, bytes: &[u8], longest: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let ample = (buffer.capacity() * 2).min(longest);
        buffer.reserve_exact(needed.max(ample) - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
