//! What several unit tests need.

use crate::frame::{Frame, Opcode};

/// A client's frame, masked. `first` is the header's first byte.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let server_frame = Frame::new(Opcode::Text, payload);
    let header_bytes = server_frame.as_bytes().len() - payload.len();
    let mut bytes = server_frame.as_bytes()[..header_bytes].to_vec();
    let mask = [0x12, 0x34, 0x56, 0x78];
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}
