//! RESP2 and RESP3. A message is an array or a push of which the first element is the text `message`.

use super::frame::{Found, line_end, number};

/// Where a frame's reading has got to, so that no byte of a frame that comes in pieces is read twice.
#[derive(Debug)]
pub(crate) struct Resp {
    position: usize,
    /// Elements that are still to come, the frame itself at first.
    elements: usize,
}

impl Default for Resp {
    fn default() -> Self {
        Self {
            position: 0,
            elements: 1,
        }
    }
}

impl Resp {
    /// Reads on; after `Whole` a new one is to be used.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Found {
        while self.elements > 0 {
            let Some(first) = bytes.get(self.position) else {
                return Found::Unfinished;
            };
            let Some(end) = line_end(bytes, self.position) else {
                return Found::Unfinished;
            };
            let size = &bytes[self.position + 1..end];
            let (length, children) = match first {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => (0, 0),
                b'$' | b'!' | b'=' | b'*' if size == b"-1" => (0, 0),
                b'$' | b'!' | b'=' => match number(size) {
                    Some(length) => (length + 2, 0),
                    None => return Found::Unknown,
                },
                b'*' | b'~' | b'>' => match number(size) {
                    Some(count) => (0, count),
                    None => return Found::Unknown,
                },
                // Attributes come before what they belong to.
                b'%' | b'|' => match number(size) {
                    Some(pairs) => (0, 2 * pairs + usize::from(*first == b'|')),
                    None => return Found::Unknown,
                },
                _ => return Found::Unknown,
            };
            if bytes.len() < end + 2 + length {
                return Found::Unfinished;
            }
            self.position = end + 2 + length;
            self.elements += children;
            self.elements -= 1;
        }
        Found::Whole {
            length: self.position,
            is_message: is_message(&bytes[..self.position]),
        }
    }
}

fn is_message(frame: &[u8]) -> bool {
    const KINDS: [&[u8]; 3] = [
        b"$7\r\nmessage\r\n",
        b"$8\r\npmessage\r\n",
        b"$8\r\nsmessage\r\n",
    ];
    let is_list = frame.starts_with(b">") || frame.starts_with(b"*");
    let Some(end) = line_end(frame, 0).filter(|_| is_list) else {
        return false;
    };
    KINDS.iter().any(|kind| frame[end + 2..].starts_with(kind))
}
