//! A client's bytes decode to the same frames whatever pieces they come in.

#![no_main]

use hushnet_websocket::{Decoder, Incoming, Violation};
use libfuzzer_sys::fuzz_target;

const MESSAGE_BYTES_MAX: usize = 1_000;

fn decode(bytes: &[u8], piece_bytes: usize) -> (Vec<Incoming>, Option<Violation>) {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        decoder.feed(piece);
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(violation) => return (frames, Some(violation)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece_bytes, bytes) = input;
    let whole = decode(&bytes, bytes.len().max(1));
    let pieces = decode(&bytes, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces);
    for frame in &whole.0 {
        match frame {
            Incoming::Text(text) => assert!(text.len() <= MESSAGE_BYTES_MAX),
            Incoming::Binary(bytes) => assert!(bytes.len() <= MESSAGE_BYTES_MAX),
            Incoming::Ping(answer) | Incoming::Close(answer) => {
                assert!(answer.payload().len() <= 125);
            }
            Incoming::Fragment | Incoming::Pong => {}
        }
    }
});
