use super::*;
use crate::testing::client_frame;

/// What comes of these bytes, in pieces of this length.
fn decoded(bytes: &[u8], piece_bytes: usize) -> (Vec<Incoming>, Option<Violation>) {
    let mut decoder = Decoder::new(1_000);
    let mut incoming = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        decoder.feed(piece);
        loop {
            match decoder.decode() {
                Ok(Some(frame)) => incoming.push(frame),
                Ok(None) => break,
                Err(violation) => return (incoming, Some(violation)),
            }
        }
        let held = decoder.held.as_ref().map_or(0, |held| {
            held.input.capacity() + held.message.as_ref().map_or(0, |m| m.bytes.capacity())
        });
        assert!(held <= Decoder::held_bytes_max(1_000, piece_bytes));
    }
    (incoming, None)
}

#[test]
fn frames_come_out_alike_whatever_pieces_they_come_in() {
    let long = "é".repeat(400);
    let bytes = [
        client_frame(0x81, b"{}"),
        client_frame(0x01, &long.as_bytes()[..3]),
        client_frame(0x89, b"are you there"),
        client_frame(0x00, &long.as_bytes()[3..500]),
        client_frame(0x80, &long.as_bytes()[500..]),
        client_frame(0x02, b""),
        client_frame(0x80, b"\xff"),
        client_frame(0x8a, b""),
        client_frame(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let expected = vec![
        Incoming::Text("{}".to_owned()),
        Incoming::Fragment,
        Incoming::Ping(Frame::new(Opcode::Pong, b"are you there")),
        Incoming::Fragment,
        Incoming::Text(long),
        Incoming::Fragment,
        Incoming::Binary(vec![0xff]),
        Incoming::Pong,
        Incoming::Close(Frame::close(1000, "bye")),
    ];
    for piece_bytes in [1, 2, 3, 7, 100, bytes.len()] {
        let (incoming, violation) = decoded(&bytes, piece_bytes);
        assert_eq!((incoming.as_slice(), violation), (&expected[..], None));
    }
}

#[test]
fn what_breaks_a_rule_is_refused_and_what_came_before_is_not() {
    use Violation::{NotUtf8, Protocol, TooBig};
    let oversized = [&[0x81, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    for (case, bytes, expected) in [
        ("unmasked", vec![0x81, 2, b'{', b'}'], Protocol),
        ("a reserved bit", client_frame(0xc1, b"{}"), Protocol),
        ("a reserved opcode", client_frame(0x83, b"{}"), Protocol),
        ("a long ping", client_frame(0x89, &[0; 126]), Protocol),
        ("half a ping", client_frame(0x09, b""), Protocol),
        ("a rest of nothing", client_frame(0x80, b"{}"), Protocol),
        (
            "a message inside a message",
            [client_frame(0x01, b"a"), client_frame(0x81, b"b")].concat(),
            Protocol,
        ),
        ("a close of one byte", client_frame(0x88, &[3]), Protocol),
        (
            "a close code that is none",
            client_frame(0x88, &[3, 0xed]),
            Protocol,
        ),
        (
            "a reason that is no text",
            client_frame(0x88, b"\x03\xe8\xff"),
            NotUtf8,
        ),
        ("a text that is none", client_frame(0x81, b"\xff"), NotUtf8),
        (
            "a text that ends in a character",
            [client_frame(0x01, b"\xc3"), client_frame(0x80, b"")].concat(),
            NotUtf8,
        ),
        (
            "a fragment that is no text",
            [client_frame(0x01, b"\xc3"), client_frame(0x00, b"\xff")].concat(),
            NotUtf8,
        ),
        (
            "a frame too long",
            client_frame(0x81, &[b'x'; 1_001]),
            TooBig,
        ),
        ("a length of 2^62", oversized, TooBig),
        (
            "a message too long",
            [
                client_frame(0x01, &[b'x'; 600]),
                client_frame(0x80, &[b'x'; 401]),
            ]
            .concat(),
            TooBig,
        ),
    ] {
        let bytes = [client_frame(0x81, b"before"), bytes].concat();
        for piece_bytes in [1, bytes.len()] {
            let (incoming, violation) = decoded(&bytes, piece_bytes);
            assert_eq!(incoming[0], Incoming::Text("before".to_owned()), "{case}");
            assert_eq!(violation, Some(expected), "{case}");
        }
    }
}

#[test]
fn nothing_is_held_while_no_message_is_under_way() {
    let mut decoder = Decoder::new(1_000);
    decoder.feed(&client_frame(0x81, b"{}"));
    assert!(decoder.decode().unwrap().is_some());
    assert_eq!(decoder.decode().unwrap(), None);
    assert!(decoder.held.is_none());
}
