//! Streams of both protocols, cut at every place.

use bytes::Bytes;

use super::frame::Frame;
use super::splitter::Splitter;
use crate::options::BrokerKind;

fn message(bytes: &'static [u8]) -> Frame {
    Frame::Message(Bytes::from_static(bytes))
}

fn other(bytes: &'static [u8]) -> Frame {
    Frame::Other(Bytes::from_static(bytes))
}

fn redis() -> Vec<Frame> {
    vec![
        other(b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"),
        other(b">3\r\n$9\r\nsubscribe\r\n$7\r\nmessage\r\n:1\r\n"),
        message(b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n"),
        other(b":1\r\n"),
        message(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$17\r\n>3\r\n$7\r\nmessage\r\n\r\n"),
        other(b"+PONG\r\n"),
        message(b"*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$1\r\nx\r\n"),
        other(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
        other(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
        other(b"*-1\r\n"),
        other(b"*0\r\n"),
        other(b"|1\r\n+a\r\n,1.5\r\n*2\r\n#t\r\n_\r\n"),
        other(b"-NOPERM no\r\n"),
        other(b"=7\r\ntxt:a\r\n\r\n"),
        other(b"*2\r\n*1\r\n$-1\r\n~1\r\n(12345678901234567890\r\n"),
    ]
}

fn nats() -> Vec<Frame> {
    vec![
        other(b"INFO {\"max_payload\":1048576,\"x\":\"MSG a 1 5\"}\r\n"),
        other(b"PONG\r\n"),
        message(b"MSG hushnet.a 1 0\r\n\r\n"),
        message(b"MSG hushnet.a 1 reply.to 15\r\nPING\r\nMSG a 1 1\r\n"),
        other(b"PING\r\n"),
        message(b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nxy\r\n"),
        other(b"+OK\r\n"),
        other(b"-ERR 'Slow Consumer'\r\n"),
    ]
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let parts = frames.iter().map(|frame| match frame {
        Frame::Message(bytes) | Frame::Other(bytes) => bytes.to_vec(),
    });
    parts.collect::<Vec<_>>().concat()
}

fn split(kind: BrokerKind, pieces: &[&[u8]]) -> Vec<Frame> {
    let mut splitter = Splitter::new(kind);
    let mut frames = Vec::new();
    for piece in pieces {
        splitter.feed(piece);
        frames.extend(std::iter::from_fn(|| splitter.next()));
    }
    frames
}

#[test]
fn messages_are_found_wherever_the_bytes_are_cut() {
    for (kind, frames) in [(BrokerKind::Redis, redis()), (BrokerKind::Nats, nats())] {
        let all = bytes(&frames);
        for cut in 0..=all.len() {
            let found = split(kind, &[&all[..cut], &all[cut..]]);
            assert_eq!(found, frames, "cut at {cut}");
        }
        for length in 1..all.len() {
            let pieces: Vec<_> = all.chunks(length).collect();
            assert_eq!(split(kind, &pieces), frames, "pieces of {length}");
        }
    }
}

#[test]
fn what_is_not_understood_passes_as_it_came_with_all_that_follows() {
    let begin: [&[u8]; 4] = [b"\x16\x03\x01", b"$x\r\n", b"*?\r\n", b"HTTP/1.1 400\r\n"];
    for text in begin {
        let after = b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n".as_slice();
        let mut splitter = Splitter::new(BrokerKind::Redis);
        splitter.feed(text);
        splitter.feed(after);
        let mut found = Vec::new();
        while let Some(frame) = splitter.next() {
            assert!(matches!(frame, Frame::Other(_)), "{frame:?}");
            found.push(frame);
        }
        assert_eq!(bytes(&found), [text, after].concat());
    }
    let found = split(BrokerKind::Nats, &[b"MSG a 1 x\r\n", b"MSG a 1 0\r\n\r\n"]);
    assert!(found.iter().all(|frame| matches!(frame, Frame::Other(_))));
    assert_eq!(bytes(&found), b"MSG a 1 x\r\nMSG a 1 0\r\n\r\n");
}
