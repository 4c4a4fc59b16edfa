//! A client's half of RFC 6455's frames: reads a server's, writes pongs.
//!
//! A frame that no server may send, or one part of a fragmented message, is an error: what it carried
//! would be missing from the count.

use std::fmt;

/// Larger than anything that is sent here; a length beyond it is taken for garbage.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;
/// Any key will do: it protects proxies, and there are none.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Text or binary, which are treated alike.
    Data(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Masked,
    Fragmented,
    Opcode(u8),
    TooLong(u64),
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masked => formatter.write_str("the server sent a masked frame"),
            Self::Fragmented => formatter.write_str("the server sent a fragmented message"),
            Self::Opcode(opcode) => write!(formatter, "the server sent opcode {opcode}"),
            Self::TooLong(bytes) => write!(formatter, "the server sent a frame of {bytes} bytes"),
        }
    }
}

impl std::error::Error for Malformed {}

/// The first frame of `data` and its whole length; `None` while it is incomplete.
pub(crate) fn next(data: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let &[first, second, ref rest @ ..] = data else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err(Malformed::Masked);
    }
    let (length, head) = match second {
        126 => match rest {
            [a, b, ..] => (u64::from(u16::from_be_bytes([*a, *b])), 4),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|_| length <= PAYLOAD_BYTES_MAX)
        .ok_or(Malformed::TooLong(length))?;
    let Some(payload) = data.get(head..head + length) else {
        return Ok(None);
    };
    let frame = match (first & 0x80 != 0, first & 0x0f) {
        (true, 1 | 2) => Frame::Data(payload),
        (false, 1 | 2) | (_, 0) => return Err(Malformed::Fragmented),
        (_, 8) => Frame::Close,
        (_, 9) => Frame::Ping(payload),
        (_, 10) => Frame::Pong,
        (_, opcode) => return Err(Malformed::Opcode(opcode)),
    };
    Ok(Some((frame, head + length)))
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    // A control frame has at most 125 bytes.
    let payload = &payload[..payload.len().min(125)];
    let length = u8::try_from(payload.len()).unwrap_or(0);
    let mut frame = vec![0x8a, 0x80 | length];
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_each_length_are_read() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut data = match head {
                2 => vec![0x81, u8::try_from(length).unwrap()],
                4 => [
                    &[0x81, 126],
                    &u16::try_from(length).unwrap().to_be_bytes()[..],
                ]
                .concat(),
                _ => [&[0x81, 127], &(length as u64).to_be_bytes()[..]].concat(),
            };
            data.resize(head + length, b'x');
            for cut in [0, 1, head - 1, (head + length).saturating_sub(1)] {
                if cut < data.len() {
                    assert_eq!(next(&data[..cut]), Ok(None), "{length} cut at {cut}");
                }
            }
            let whole = data.len();
            data.extend_from_slice(b"the next");
            let payload = vec![b'x'; length];
            assert_eq!(next(&data), Ok(Some((Frame::Data(&payload), whole))));
        }
    }

    #[test]
    fn control_frames_are_told_apart() {
        assert_eq!(next(&[0x89, 1, 7]), Ok(Some((Frame::Ping(&[7]), 3))));
        assert_eq!(next(&[0x8a, 0]), Ok(Some((Frame::Pong, 2))));
        assert_eq!(next(&[0x88, 2, 3, 232]), Ok(Some((Frame::Close, 4))));
    }

    #[test]
    fn what_a_server_may_not_send_is_an_error() {
        assert_eq!(next(&[0x81, 0x80, 0, 0, 0, 0]), Err(Malformed::Masked));
        assert_eq!(next(&[0x01, 0]), Err(Malformed::Fragmented));
        assert_eq!(next(&[0x80, 0]), Err(Malformed::Fragmented));
        assert_eq!(next(&[0x83, 0]), Err(Malformed::Opcode(3)));
        let long = [0x81, 127, 0, 0, 0, 0, 0, 16, 0, 1];
        assert_eq!(next(&long), Err(Malformed::TooLong((1 << 20) + 1)));
    }

    #[test]
    fn a_pong_carries_the_payload_masked() {
        let frame = pong(b"abcde");
        assert_eq!(frame[..2], [0x8a, 0x85]);
        let unmasked: Vec<u8> = frame[6..]
            .iter()
            .zip(frame[2..6].iter().cycle())
            .map(|(a, b)| a ^ b)
            .collect();
        assert_eq!(unmasked, b"abcde");
    }
}
