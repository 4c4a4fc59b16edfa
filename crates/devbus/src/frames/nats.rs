//! NATS. A message is `MSG` or `HMSG`; everything else is one line.

use super::frame::{Found, line_end, number};

/// The longest line: INFO of a large cluster.
const LINE_BYTES_MAX: usize = 1 << 20;

pub(crate) fn find(bytes: &[u8]) -> Found {
    let Some(end) = line_end(bytes, 0) else {
        if bytes.len() > LINE_BYTES_MAX {
            return Found::Unknown;
        }
        return Found::Unfinished;
    };
    let line = &bytes[..end];
    if !line.starts_with(b"MSG ") && !line.starts_with(b"HMSG ") {
        return Found::Whole {
            length: end + 2,
            is_message: false,
        };
    }
    let Some(payload) = line.rsplit(|byte| *byte == b' ').next().and_then(number) else {
        return Found::Unknown;
    };
    let length = end + 2 + payload + 2;
    if bytes.len() < length {
        return Found::Unfinished;
    }
    Found::Whole {
        length,
        is_message: true,
    }
}
