//! The protocols against bytes, in whatever pieces they come.

use bytes::{Buf, Bytes};

use super::contract::FRAME_BYTES_MAX;
use super::{Incoming, NatsInfo, NatsWire, RedisWire, Wire};
use crate::error::{BusCause, BusError};
use crate::subject::Subject;

fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

fn message(name: &str, payload: &'static [u8]) -> Incoming {
    Incoming::Message {
        subject: subject(name),
        payload: Bytes::from_static(payload),
    }
}

fn written<W: Wire>(wire: &mut W) -> String {
    let out = wire.outgoing();
    let bytes = out.copy_to_bytes(out.remaining());
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What comes of the bytes, fed in pieces of this length.
fn fed<W: Wire>(wire: &mut W, bytes: &[u8], length: usize) -> Result<Vec<Incoming>, BusError> {
    let mut all = Vec::new();
    for piece in bytes.chunks(length) {
        wire.feed(piece);
        while let Some(incoming) = wire.next()? {
            all.push(incoming);
        }
    }
    Ok(all)
}

/// Has asked for two subscriptions, two messages and a pong.
fn busy<W: Wire>(mut wire: W) -> W {
    wire.change(&[], vec![subject("a"), subject("b.c")]);
    assert!(wire.is_confirming());
    wire.publish(&subject("a"), Bytes::from_static(b"1\r\n2"));
    wire.publish(&subject("b.c"), Bytes::new());
    wire.ping();
    wire
}

#[test]
fn what_is_asked_is_written_as_the_protocols_say() {
    assert_eq!(
        written(&mut busy(RedisWire::default())),
        "*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$3\r\nb.c\r\n\
         *3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$4\r\n1\r\n2\r\n\
         *3\r\n$7\r\nPUBLISH\r\n$3\r\nb.c\r\n$0\r\n\r\n\
         *1\r\n$4\r\nPING\r\n"
    );
    assert_eq!(
        written(&mut busy(NatsWire::default())),
        "SUB a 1\r\nSUB b.c 2\r\nPING\r\nPUB a 4\r\n1\r\n2\r\nPUB b.c 0\r\n\r\nPING\r\n"
    );
}

#[test]
fn answers_and_messages_are_read_in_whatever_pieces_they_come() {
    let expected = [
        Incoming::Subscribed(subject("a")),
        Incoming::Subscribed(subject("b.c")),
        message("b.c", b""),
        message("a", b"$1\r\nMSG a 1 1\r\n"),
        Incoming::Pong,
    ];
    let redis = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$3\r\nb.c\r\n:2\r\n\
        >3\r\n$7\r\nmessage\r\n$3\r\nb.c\r\n$0\r\n\r\n:0\r\n>2\r\n$8\r\ntracking\r\n$1\r\nx\r\n:1\r\n\
        >3\r\n$7\r\nmessage\r\n$1\r\na\r\n$15\r\n$1\r\nMSG a 1 1\r\n\r\n\
        >3\r\n$7\r\nmessage\r\n$1\r\nz\r\n$1\r\nx\r\n+PONG\r\n";
    let nats = b"PONG\r\nMSG b.c 2 0\r\n\r\nPING\r\nMSG a 1 15\r\n$1\r\nMSG a 1 1\r\n\r\n\
        MSG z 9 1\r\nx\r\nPONG\r\n";
    for length in 1..redis.len() {
        let mut wire = busy(RedisWire::default());
        assert_eq!(fed(&mut wire, redis, length).unwrap(), expected, "{length}");
        assert!(!wire.is_confirming());
    }
    for length in 1..nats.len() {
        let mut wire = busy(NatsWire::default());
        written(&mut wire);
        assert_eq!(fed(&mut wire, nats, length).unwrap(), expected, "{length}");
        assert!(!wire.is_confirming());
        // The server's own PING.
        assert_eq!(written(&mut wire), "PONG\r\n");
    }
}

#[test]
fn a_subscription_that_the_broker_ends_by_itself_is_reported() {
    let mut wire = busy(RedisWire::default());
    let confirmed =
        b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$3\r\nb.c\r\n:2\r\n";
    fed(&mut wire, confirmed, 64).unwrap();
    fed(&mut wire, b":0\r\n:0\r\n+PONG\r\n", 64).unwrap();
    let ended = b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n";
    let expected = [Incoming::Unsubscribed(subject("a"))];
    assert_eq!(fed(&mut wire, ended, 64).unwrap(), expected);
    // And one that it was asked to end is not.
    wire.change(&[subject("b.c")], Vec::new());
    let ended = b">3\r\n$11\r\nunsubscribe\r\n$3\r\nb.c\r\n:0\r\n";
    assert_eq!(fed(&mut wire, ended, 64).unwrap(), []);
    assert!(!wire.is_confirming());
}

#[test]
fn a_message_of_an_ended_subscription_is_none_of_the_next_one() {
    let mut wire = busy(NatsWire::default());
    fed(&mut wire, b"PONG\r\nPONG\r\n", 64).unwrap();
    wire.change(&[subject("a")], vec![subject("a")]);
    let late = b"MSG a 1 3\r\nold\r\nMSG a 3 3\r\nnew\r\nPONG\r\n";
    let expected = [message("a", b"new"), Incoming::Subscribed(subject("a"))];
    assert_eq!(fed(&mut wire, late, 64).unwrap(), expected);
}

#[test]
fn each_error_of_a_broker_has_its_cause() {
    for (text, cause) in [
        (
            "NOPERM No permissions to access a channel",
            BusCause::SubscribeRefused,
        ),
        ("NOAUTH Authentication required.", BusCause::LoginRefused),
        (
            "LOADING Redis is loading the dataset in memory",
            BusCause::Refused,
        ),
    ] {
        let mut wire = busy(RedisWire::default());
        let error = fed(&mut wire, format!("-{text}\r\n").as_bytes(), 7).unwrap_err();
        assert_eq!(error.cause(), cause, "{error}");
        assert_eq!(error.detail(), text);
    }
    for (text, cause) in [
        ("Authorization Violation", BusCause::LoginRefused),
        ("User Authentication Expired", BusCause::LoginRefused),
        (
            "Permissions Violation for Subscription to \"a\"",
            BusCause::SubscribeRefused,
        ),
        (
            "Permissions Violation for Publish to \"a\"",
            BusCause::PublishRefused,
        ),
        ("Maximum Payload Violation", BusCause::PayloadTooLarge),
        ("Slow Consumer", BusCause::SlowConsumer),
        ("Stale Connection", BusCause::Closed),
        ("Secure Connection - TLS Required", BusCause::Tls),
        ("Maximum Connections Exceeded", BusCause::Refused),
    ] {
        let mut wire = busy(NatsWire::default());
        let error = fed(&mut wire, format!("-ERR '{text}'\r\n").as_bytes(), 7).unwrap_err();
        assert_eq!(error.cause(), cause, "{error}");
    }
}

#[test]
fn what_is_of_no_protocol_is_an_error_and_no_panic() {
    for text in [
        "nonsense\r\n",
        ":1\r\n:1\r\n:1\r\n",
        "+PONG\r\n",
        ">0\r\n",
        ">1\r\n:1\r\n",
        "$-7\r\nx",
        "*-9\r\n",
        ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
         >3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    ] {
        let mut wire = busy(RedisWire::default());
        let error = fed(&mut wire, text.as_bytes(), 5).unwrap_err();
        assert_eq!(error.cause(), BusCause::Protocol, "{text:?}: {error}");
    }
    for text in [
        "nonsense\r\n",
        "MSG a\r\n",
        "MSG a x 1\r\n",
        "MSG a 1 99999999999999999999\r\n",
        "PONG\r\nPONG\r\nPONG\r\n",
        "-ERR x\r\n",
        "\r\n",
    ] {
        let mut wire = busy(NatsWire::default());
        let error = fed(&mut wire, text.as_bytes(), 5).unwrap_err();
        assert_eq!(error.cause(), BusCause::Protocol, "{text:?}: {error}");
    }
}

#[test]
fn a_message_that_is_too_long_ends_the_connection_before_it_is_held() {
    let piece = vec![b'x'; 64 * 1024];
    let redis = &mut busy(RedisWire::default()) as &mut dyn Feed;
    let nats = &mut busy(NatsWire::default()) as &mut dyn Feed;
    for (wire, head) in [
        (redis, ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$100000000\r\n"),
        (nats, "MSG a 1 100000000\r\n"),
    ] {
        wire.feed_all(head.as_bytes()).unwrap();
        let mut held = 0;
        let error = loop {
            held += piece.len();
            if let Err(error) = wire.feed_all(&piece) {
                break error;
            }
        };
        assert_eq!(error.cause(), BusCause::PayloadTooLarge);
        assert!(held <= FRAME_BYTES_MAX + 2 * piece.len(), "{held}");
    }
}

trait Feed {
    fn feed_all(&mut self, bytes: &[u8]) -> Result<Vec<Incoming>, BusError>;
}

impl<W: Wire> Feed for W {
    fn feed_all(&mut self, bytes: &[u8]) -> Result<Vec<Incoming>, BusError> {
        fed(self, bytes, bytes.len())
    }
}

#[test]
fn a_nats_server_may_call_itself_by_a_name() {
    let line = br#"INFO {"server_id":"x","host":"localhost","max_payload":5,"tls_required":true}"#;
    let info = NatsInfo::parse(line).unwrap();
    assert_eq!((info.max_payload, info.tls_required), (5, true));
    let error = NatsInfo::parse(b"INFO {}").unwrap_err();
    assert_eq!(error.cause(), BusCause::Protocol);
}

#[test]
fn an_old_redis_is_refused_with_its_words() {
    let mut wire = RedisWire::default();
    wire.feed(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n");
    let error = wire.login_answer().unwrap_err();
    assert_eq!(error.cause(), BusCause::Refused);
    assert!(error.advice().contains("Redis 6"));
}
