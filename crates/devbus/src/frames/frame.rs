//! What the bytes are cut into.

use bytes::Bytes;

/// A whole piece of the protocol, with all its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A published message.
    Message(Bytes),
    /// Anything else: confirmations, pings, answers, errors.
    Other(Bytes),
}

/// What a protocol finds at the beginning of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// More bytes are needed.
    Unfinished,
    /// A whole frame of this length.
    Whole { length: usize, is_message: bool },
    /// The bytes are of another protocol.
    Unknown,
}

/// The end of the line that begins at `from`: where its text ends.
pub(crate) fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    Some(from + end)
}

pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
