//! What arrives, and when the stream is read.

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::AsyncWriteExt;

use super::*;

fn text(text: &str) -> SocketEvent {
    SocketEvent::Text(text.to_owned())
}

#[tokio::test]
async fn messages_arrive_whatever_pieces_their_bytes_come_in() {
    let bytes = [
        client_frame(0x81, b"first"),
        client_frame(0x82, &[1, 2, 3]),
        client_frame(0x01, b"sec"),
        client_frame(0x80, b"ond"),
        client_frame(0x8a, b""),
        client_frame(0x81, &[b'x'; 200]),
    ]
    .concat();
    for piece_bytes in [1, 2, 3, 10, 64, bytes.len()] {
        let (mut socket, mut peer) = pair(64);
        let sender = async {
            for piece in bytes.chunks(piece_bytes) {
                peer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer
        };
        let receiver = async {
            for expected in [
                text("first"),
                SocketEvent::Binary(vec![1, 2, 3]),
                SocketEvent::Alive,
                text("second"),
                SocketEvent::Alive,
                text(&"x".repeat(200)),
            ] {
                assert_eq!(socket.next_event(true).await, expected);
            }
        };
        tokio::join!(sender, receiver);
    }
}

#[test]
fn bytes_that_came_with_the_request_are_the_first_to_arrive() {
    let (stream, _peer) = tokio::io::duplex(64);
    let received = client_frame(0x81, b"early");
    let mut socket = Socket::new(stream, &received, LIMITS);
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("early")));
    assert_eq!(poll_receive(&mut socket), Poll::Pending);
}

#[test]
fn a_new_socket_holds_nothing() {
    let (socket, _peer) = pair(64);
    assert_eq!(socket.decoder.held_bytes(), 0);
    assert!(!socket.is_writing());
}

#[test]
fn the_stream_is_read_until_it_finds_nothing_and_then_only_after_a_wake() {
    let (mut socket, seen) = scripted([
        Read::Bytes(client_frame(0x81, b"1")),
        Read::Bytes(client_frame(0x81, b"2")),
        Read::Nothing,
        Read::Bytes(client_frame(0x81, b"3")),
        Read::Nothing,
    ]);
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("1")));
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("2")));
    assert_eq!(poll_receive(&mut socket), Poll::Pending);
    assert_eq!(seen.reads.load(Relaxed), 3);
    assert_eq!(poll_receive(&mut socket), Poll::Pending);
    assert_eq!(seen.reads.load(Relaxed), 3);
    seen.wake_reader();
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("3")));
    assert_eq!(poll_receive(&mut socket), Poll::Pending);
    assert_eq!(seen.reads.load(Relaxed), 5);
}

#[test]
fn frames_that_came_together_are_read_once() {
    let both = [client_frame(0x81, b"1"), client_frame(0x81, b"2")].concat();
    let (mut socket, seen) = scripted([Read::Bytes(both), Read::Nothing]);
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("1")));
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("2")));
    assert_eq!(seen.reads.load(Relaxed), 1);
}

#[test]
fn one_read_returns_4_kib_at_most() {
    let (mut socket, seen) = scripted([Read::Nothing]);
    assert_eq!(poll_receive(&mut socket), Poll::Pending);
    assert_eq!(seen.read_bytes_max.load(Relaxed), 4_096);
}

#[tokio::test]
async fn a_message_wakes_a_task_that_waits_for_it() {
    let (mut socket, mut peer) = pair(64);
    let receiver = socket.next_event(true);
    let sender = async {
        tokio::task::yield_now().await;
        peer.write_all(&client_frame(0x81, b"late")).await.unwrap();
        peer
    };
    let (event, _peer) = tokio::join!(receiver, sender);
    assert_eq!(event, text("late"));
}

#[test]
fn nothing_is_read_unless_asked_for() {
    let (mut socket, seen) = scripted([Read::Bytes(client_frame(0x81, b"1"))]);
    assert_eq!(poll_event(&mut socket, false), Poll::Pending);
    assert_eq!(seen.reads.load(Relaxed), 0);
    assert_eq!(poll_event(&mut socket, true), Poll::Ready(text("1")));
}

#[test]
fn the_end_of_the_stream_is_the_peer_s() {
    let (mut socket, _) = scripted([]);
    assert!(!socket.readiness.has_ended());
    let ended = Poll::Ready(SocketEvent::Ended(Ended::ByPeer));
    assert_eq!(poll_receive(&mut socket), ended);
    assert!(socket.readiness.has_ended());
    assert!(!socket.is_writing());
}

#[test]
fn a_read_that_fails_is_the_network_s_end() {
    let (mut socket, _) = scripted([Read::Error]);
    let ended = Poll::Ready(SocketEvent::Ended(Ended::ByNetwork));
    assert_eq!(poll_receive(&mut socket), ended);
    assert!(!socket.readiness.has_ended());
}

#[test]
fn a_violation_is_passed_on_after_the_messages_before_it() {
    let bytes = [client_frame(0x81, b"1"), client_frame(0x83, b"")].concat();
    let (mut socket, _) = scripted([Read::Bytes(bytes)]);
    assert_eq!(poll_receive(&mut socket), Poll::Ready(text("1")));
    let ended = Ended::ByViolation(Violation::Protocol);
    assert_eq!(
        poll_receive(&mut socket),
        Poll::Ready(SocketEvent::Ended(ended))
    );
}

#[test]
fn a_close_frame_ends_the_connection_and_its_answer_is_queued() {
    let close = client_frame(0x88, b"\x03\xe8bye");
    let (mut socket, seen) = scripted([Read::Bytes(close), Read::Nothing]);
    let ended = Poll::Ready(SocketEvent::Ended(Ended::ByPeer));
    assert_eq!(poll_receive(&mut socket), ended);
    assert!(!socket.readiness.has_ended(), "more bytes may come");
    assert!(socket.is_writing());
    assert_eq!(poll_flush(&mut socket), Poll::Ready(Ok(())));
    assert_eq!(seen.written(), b"\x88\x05\x03\xe8bye");
}
