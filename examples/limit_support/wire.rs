//! Frames, requests and notifications, as far as they have to be understood.

use std::io::{self, ErrorKind};

use uuid::Uuid;

use super::users::User;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;
/// An unfragmented frame.
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The user and the key of a request for a WebSocket.
pub(crate) fn asked_for<'a>(request: &httparse::Request<'_, 'a>) -> Option<(User, &'a [u8])> {
    let query = request.path?.strip_prefix("/ws?")?;
    let user = query
        .split('&')
        .find_map(|part| part.strip_prefix("user_id="))?;
    let key = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"))?;
    Some((User(Uuid::parse_str(user).ok()?), key.value))
}

/// The `user_id` of a notification, looked for where the last one had it, then everywhere.
pub(crate) fn user_in(line: &[u8], at: &mut usize) -> Option<User> {
    const NAME: &[u8] = b"\"user_id\"";
    if !line.get(*at..).is_some_and(|line| line.starts_with(NAME)) {
        *at = line.windows(NAME.len()).position(|bytes| bytes == NAME)?;
    }
    let value = &line[*at + NAME.len()..];
    let start = value.iter().position(|byte| *byte == b'"')? + 1;
    let text = value.get(start..start + uuid::fmt::Hyphenated::LENGTH)?;
    Some(User(Uuid::try_parse_ascii(text).ok()?))
}

/// Makes `frame` one of the server's, which are not masked.
pub(crate) fn put_frame(frame: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    frame.clear();
    frame.push(FINAL | opcode);
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
}

/// A frame of a client, which is masked.
pub(crate) struct ClientFrame<'a> {
    pub(crate) opcode: u8,
    mask: [u8; 4],
    payload: &'a [u8],
    /// The length of all of it.
    pub(crate) bytes: usize,
}

impl<'a> ClientFrame<'a> {
    /// `None` if there is more to come.
    pub(crate) fn parse(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        if second & MASKED == 0 {
            return Err(ErrorKind::InvalidData.into());
        }
        let (length, rest) = match second & !MASKED {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        let length = usize::try_from(length).map_err(io::Error::other)?;
        Ok(rest.split_first_chunk().and_then(|(mask, rest)| {
            let payload = rest.get(..length)?;
            Some(Self {
                opcode: first & 0xF,
                mask: *mask,
                payload,
                bytes: bytes.len() - rest.len() + length,
            })
        }))
    }

    pub(crate) fn unmasked(&self) -> Vec<u8> {
        let mask = self.mask.iter().cycle();
        self.payload.iter().zip(mask).map(|(a, b)| a ^ b).collect()
    }
}
