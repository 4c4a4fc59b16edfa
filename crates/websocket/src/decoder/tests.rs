use super::*;
use crate::testing::client_frame;

/// What these bytes decode to, in pieces of this length.
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
        assert!(decoder.held_bytes() <= Decoder::held_bytes_max(1_000, piece_bytes));
    }
    (incoming, None)
}

#[test]
fn frames_do_not_depend_on_the_pieces_that_their_bytes_come_in() {
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
fn a_violation_is_reported_after_the_frames_before_it() {
    use Violation::{NotUtf8, Protocol, TooBig};
    let oversized = [&[0x81, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    for (case, bytes, expected) in [
        ("unmasked", vec![0x81, 2, b'{', b'}'], Protocol),
        ("a reserved bit", client_frame(0xc1, b"{}"), Protocol),
        ("a reserved opcode", client_frame(0x83, b"{}"), Protocol),
        ("a long ping", client_frame(0x89, &[0; 126]), Protocol),
        ("a fragmented ping", client_frame(0x09, b""), Protocol),
        (
            "a continuation without a message",
            client_frame(0x80, b"{}"),
            Protocol,
        ),
        (
            "a message inside a message",
            [client_frame(0x01, b"a"), client_frame(0x81, b"b")].concat(),
            Protocol,
        ),
        ("a close of one byte", client_frame(0x88, &[3]), Protocol),
        (
            "a reserved close code",
            client_frame(0x88, &[3, 0xed]),
            Protocol,
        ),
        (
            "a reason that is not UTF-8",
            client_frame(0x88, b"\x03\xe8\xff"),
            NotUtf8,
        ),
        (
            "a text that is not UTF-8",
            client_frame(0x81, b"\xff"),
            NotUtf8,
        ),
        (
            "a text that ends inside a character",
            [client_frame(0x01, b"\xc3"), client_frame(0x80, b"")].concat(),
            NotUtf8,
        ),
        (
            "a fragment that is not UTF-8",
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

/// What this one frame decodes to, with messages of at most 1,000 bytes.
fn decode_one(bytes: &[u8]) -> Result<Option<Incoming>, Violation> {
    let mut decoder = Decoder::new(1_000);
    decoder.feed(bytes);
    decoder.decode()
}

#[test]
fn messages_are_refused_only_beyond_the_limit() {
    let text = |length| Ok(Some(Incoming::Text("x".repeat(length))));
    assert_eq!(decode_one(&client_frame(0x81, &[b'x'; 999])), text(999));
    assert_eq!(decode_one(&client_frame(0x81, &[b'x'; 1_000])), text(1_000));
    let (incoming, violation) = decoded(
        &[
            client_frame(0x01, &[b'x'; 600]),
            client_frame(0x80, &[b'x'; 400]),
        ]
        .concat(),
        1_100,
    );
    assert_eq!(incoming[1], Incoming::Text("x".repeat(1_000)));
    assert_eq!(violation, None);
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_is_complete() {
    let bytes = client_frame(0x81, &[b'x'; 1_001]);
    assert_eq!(decode_one(&bytes[..8]), Err(Violation::TooBig));
    let mut decoder = Decoder::new(1_000);
    decoder.feed(&client_frame(0x01, &[b'x'; 600]));
    assert_eq!(decoder.decode(), Ok(Some(Incoming::Fragment)));
    decoder.feed(&client_frame(0x80, &[b'x'; 401])[..8]);
    assert_eq!(decoder.decode(), Err(Violation::TooBig));
}

#[test]
fn control_frames_have_a_limit_of_their_own() {
    let payload = [b'x'; 125];
    let ping = client_frame(0x89, &payload);
    let answer = Frame::new(Opcode::Pong, &payload);
    for message_bytes_max in [0, 10, 1_000] {
        let mut decoder = Decoder::new(message_bytes_max);
        decoder.feed(&ping);
        let incoming = decoder.decode().unwrap().unwrap();
        assert_eq!(incoming, Incoming::Ping(answer.clone()));
        assert!(decoder.held_bytes() <= Decoder::held_bytes_max(message_bytes_max, ping.len()));
    }
    for message_bytes_max in [10, 1_000] {
        let mut decoder = Decoder::new(message_bytes_max);
        decoder.feed(&client_frame(0x89, &[0; 126]));
        assert_eq!(decoder.decode(), Err(Violation::Protocol));
    }
}

#[test]
fn lengths_are_read_in_each_of_their_forms() {
    for length in [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 70_000] {
        let payload = vec![b'x'; length];
        let mut decoder = Decoder::new(70_000);
        let bytes = client_frame(0x82, &payload);
        let (last, first) = bytes.split_last().unwrap();
        decoder.feed(first);
        if length > 0 {
            assert_eq!(decoder.decode(), Ok(None), "{length}");
        }
        decoder.feed(&[*last]);
        let incoming = decoder.decode().unwrap().unwrap();
        assert_eq!(incoming, Incoming::Binary(payload), "{length}");
        assert_eq!(decoder.decode(), Ok(None));
    }
}

#[test]
fn each_reserved_bit_is_a_violation() {
    for bit in [0x40, 0x20, 0x10] {
        let bytes = client_frame(0x81 | bit, b"{}");
        assert_eq!(decode_one(&bytes), Err(Violation::Protocol), "{bit:#x}");
    }
}

#[test]
fn a_close_frame_is_answered_if_its_code_may_be_sent() {
    for code in [1000, 1001, 1003, 1007, 1008, 1014, 3000, 3999, 4000, 4999] {
        let answer = Frame::close(code, "why");
        let decoded = decode_one(&client_frame(0x88, answer.payload()));
        assert_eq!(decoded, Ok(Some(Incoming::Close(answer))), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
        let close = Frame::close(code, "why");
        let decoded = decode_one(&client_frame(0x88, close.payload()));
        assert_eq!(decoded, Err(Violation::Protocol), "{code}");
    }
    let empty = Frame::new(Opcode::Close, b"");
    assert_eq!(
        decode_one(&client_frame(0x88, b"")),
        Ok(Some(Incoming::Close(empty)))
    );
}

#[test]
fn control_frames_are_decoded_between_the_fragments_of_a_message() {
    let bytes = [
        client_frame(0x02, &[1]),
        client_frame(0x8a, b""),
        client_frame(0x88, b""),
    ];
    let (incoming, violation) = decoded(&bytes.concat(), 100);
    assert_eq!(
        incoming,
        [
            Incoming::Fragment,
            Incoming::Pong,
            Incoming::Close(Frame::new(Opcode::Close, b""))
        ]
    );
    assert_eq!(violation, None);
}

#[test]
fn only_a_text_has_to_be_utf_8() {
    let binary = Incoming::Binary(vec![0xff]);
    assert_eq!(decode_one(&client_frame(0x82, &[0xff])), Ok(Some(binary)));
    let (incoming, violation) = decoded(
        &[client_frame(0x02, &[0xc3]), client_frame(0x80, &[0xff])].concat(),
        100,
    );
    assert_eq!(incoming[1], Incoming::Binary(vec![0xc3, 0xff]));
    assert_eq!(violation, None);
}

#[test]
fn text_that_is_known_to_be_utf_8_is_not_validated_again() {
    let mut decoder = Decoder::new(1_000);
    let valid = |decoder: &Decoder| {
        let held = decoder.held.as_ref().unwrap();
        held.message.as_ref().unwrap().valid
    };
    for (first, fragment, expected) in [
        (0x01, &b"abc"[..], 3),
        (0x00, b"de\xc3", 5),
        (0x00, b"\xa9fg\xe2\x82", 9),
        (0x00, b"\xac", 12),
    ] {
        decoder.feed(&client_frame(first, fragment));
        assert_eq!(decoder.decode(), Ok(Some(Incoming::Fragment)));
        assert_eq!(valid(&decoder), expected);
    }
    decoder.feed(&client_frame(0x80, b""));
    let text = Incoming::Text("abcdeéfg€".to_owned());
    assert_eq!(decoder.decode(), Ok(Some(text)));
}

#[test]
fn input_is_freed_when_it_is_decoded_even_inside_a_message() {
    let mut decoder = Decoder::new(1_000);
    decoder.feed(&client_frame(0x01, &[b'x'; 600]));
    assert_eq!(decoder.decode(), Ok(Some(Incoming::Fragment)));
    let with_input = decoder.held_bytes();
    assert_eq!(decoder.decode(), Ok(None));
    assert!(decoder.held_bytes() <= with_input - 600);
    let held = decoder.held.as_ref().unwrap();
    assert_eq!((held.input.capacity(), held.decoded), (0, 0));
    decoder.feed(&client_frame(0x80, b"y"));
    let text = Incoming::Text("x".repeat(600) + "y");
    assert_eq!(decoder.decode(), Ok(Some(text)));
    assert_eq!(decoder.decode(), Ok(None));
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn half_a_header_is_kept() {
    let bytes = [client_frame(0x81, b"1"), client_frame(0x81, b"2")].concat();
    for split in 1..bytes.len() {
        let mut decoder = Decoder::new(1_000);
        let mut incoming = Vec::new();
        for piece in [&bytes[..split], &bytes[split..]] {
            decoder.feed(piece);
            while let Some(frame) = decoder.decode().unwrap() {
                incoming.push(frame);
            }
        }
        let expected = ["1", "2"].map(|text| Incoming::Text(text.to_owned()));
        assert_eq!(incoming, expected, "{split}");
        assert_eq!(decoder.held_bytes(), 0);
    }
}

#[test]
fn the_bound_is_a_frame_a_piece_a_message_and_what_holds_them() {
    let frame = 14 + 1_000;
    let held = size_of::<Held>();
    assert_eq!(
        Decoder::held_bytes_max(1_000, 4_096),
        frame + 4_096 + 1_000 + held
    );
    let control = 14 + 125;
    assert_eq!(Decoder::held_bytes_max(10, 1), control + 1 + 10 + held);
}

#[test]
fn buffers_do_not_grow_beyond_the_longest_frame_and_message() {
    let mut decoder = Decoder::new(1_000);
    let frame = client_frame(0x02, &[0; 1_000]);
    for piece in [&frame[..600], &frame[600..700]] {
        decoder.feed(piece);
        assert_eq!(decoder.decode(), Ok(None));
    }
    assert_eq!(decoder.held.unwrap().input.capacity(), 1_014);

    let mut decoder = Decoder::new(1_000);
    for (first, payload_bytes) in [(0x02, 600), (0x00, 100)] {
        decoder.feed(&client_frame(first, &vec![0; payload_bytes]));
        assert_eq!(decoder.decode(), Ok(Some(Incoming::Fragment)));
    }
    let message = decoder.held.unwrap().message.unwrap();
    assert_eq!(message.bytes.capacity(), 1_000);
}
