//! What is written, and what happens while a write is blocked.

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn queued_frames_arrive_in_order_through_a_narrow_stream() {
    let (mut socket, mut peer) = pair(7);
    let frames: Vec<_> = (0..20).map(|n| Frame::text(&"x".repeat(n))).collect();
    let expected: Vec<_> = frames.iter().flat_map(Frame::as_bytes).copied().collect();
    let sender = async {
        for frame in &frames {
            socket.queue(frame.clone());
        }
        assert_eq!(socket.next_event(true).await, SocketEvent::Flushed);
        assert!(!socket.is_writing());
    };
    tokio::join!(sender, expect(&mut peer, &expected));
}

#[tokio::test]
async fn messages_arrive_while_a_write_is_blocked() {
    let (mut socket, mut peer) = pair(16);
    let long = Frame::text(&"x".repeat(100));
    socket.queue(long.clone());
    assert_eq!(poll_event(&mut socket, true), Poll::Pending);
    for n in 0..5_u8 {
        peer.write_all(&client_frame(0x82, &[n])).await.unwrap();
        let event = socket.next_event(true).await;
        assert_eq!(event, SocketEvent::Binary(vec![n]));
        assert!(socket.is_writing());
    }
    let (event, ()) = tokio::join!(socket.next_event(true), expect(&mut peer, long.as_bytes()));
    assert_eq!(event, SocketEvent::Flushed);
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let (mut socket, seen) = scripted([Read::Bytes(client_frame(0x89, b"hi"))]);
    assert_eq!(poll_receive(&mut socket), Poll::Ready(SocketEvent::Alive));
    assert!(socket.is_writing());
    assert_eq!(
        poll_event(&mut socket, false),
        Poll::Ready(SocketEvent::Flushed)
    );
    assert_eq!(seen.written(), b"\x8a\x02hi");
    assert!(!socket.is_writing());
}

#[test]
fn the_pong_of_an_idle_socket_goes_before_frames_that_are_queued_later() {
    let (mut socket, seen) = scripted([Read::Bytes(client_frame(0x89, b"hi"))]);
    assert_eq!(poll_receive(&mut socket), Poll::Ready(SocketEvent::Alive));
    socket.queue(Frame::text("{}"));
    assert_eq!(poll_flush(&mut socket), Poll::Ready(Ok(())));
    assert_eq!(seen.written(), b"\x8a\x02hi\x81\x02{}");
}

#[test]
fn of_the_pings_during_a_blocked_write_only_the_newest_is_answered() {
    let pings = [b"1", b"2", b"3"].map(|payload| client_frame(0x89, payload));
    let (mut socket, seen) = scripted([Read::Bytes(pings.concat()), Read::Nothing]);
    socket.stream.writes = [Write::Takes(1), Write::Blocks, Write::Blocks, Write::Blocks].into();
    socket.queue(Frame::text("{}"));
    for _ in 0..3 {
        let event = poll_event(&mut socket, true);
        assert_eq!(event, Poll::Ready(SocketEvent::Alive));
    }
    let flushed = Poll::Ready(SocketEvent::Flushed);
    assert_eq!(poll_event(&mut socket, true), flushed);
    assert_eq!(seen.written(), b"\x81\x02{}\x8a\x013");
    assert!(!socket.is_writing());
}

#[test]
fn a_pong_behind_a_pending_flush_is_still_to_be_written() {
    let (mut socket, seen) = scripted([Read::Bytes(client_frame(0x89, b"hi")), Read::Nothing]);
    socket.stream.writes = [Write::Blocks].into();
    socket.stream.flushes = [Write::Blocks].into();
    socket.queue(Frame::ping());
    let alive = Poll::Ready(SocketEvent::Alive);
    assert_eq!(poll_event(&mut socket, true), alive);
    assert_eq!(poll_flush(&mut socket), Poll::Pending);
    assert_eq!(seen.written(), [0x89, 0]);
    assert!(socket.is_writing());
    assert_eq!(poll_flush(&mut socket), Poll::Ready(Ok(())));
    assert_eq!(seen.written(), b"\x89\x00\x8a\x02hi");
    assert!(!socket.is_writing());
}

#[test]
fn a_socket_is_writing_until_its_stream_has_flushed() {
    let (mut socket, seen) = scripted([Read::Nothing]);
    socket.stream.flushes = [Write::Blocks, Write::Blocks].into();
    socket.queue(Frame::text("{}"));
    assert_eq!(poll_event(&mut socket, true), Poll::Pending);
    assert_eq!(seen.written(), b"\x81\x02{}");
    assert!(socket.is_writing(), "TLS may hold what it has taken");
    assert_eq!(poll_event(&mut socket, true), Poll::Pending);
    let flushed = Poll::Ready(SocketEvent::Flushed);
    assert_eq!(poll_event(&mut socket, true), flushed);
    assert!(!socket.is_writing());
    assert_eq!(seen.written(), b"\x81\x02{}", "nothing is written twice");
}

#[test]
fn a_socket_without_frames_is_not_flushed() {
    let (mut socket, _) = scripted([Read::Nothing]);
    socket.stream.flushes = [Write::Error].into();
    assert_eq!(poll_event(&mut socket, true), Poll::Pending);
}

#[test]
fn frames_that_are_queued_together_are_written_together() {
    let (mut socket, seen) = scripted([]);
    for _ in 0..3 {
        socket.queue(Frame::text("{}"));
    }
    assert_eq!(poll_flush(&mut socket), Poll::Ready(Ok(())));
    assert_eq!(seen.writes.load(Relaxed), 1);
}

#[test]
fn a_write_or_flush_that_fails_is_the_network_s_end() {
    for (writes, flushes) in [
        (vec![Write::Error], vec![]),
        (vec![Write::Takes(0)], vec![]),
        (vec![Write::Takes(1), Write::Error], vec![]),
        (vec![], vec![Write::Error]),
    ] {
        let (mut socket, _) = scripted([Read::Nothing]);
        socket.stream.writes = writes.into();
        socket.stream.flushes = flushes.into();
        socket.queue(Frame::text("{}"));
        let ended = Poll::Ready(SocketEvent::Ended(Ended::ByNetwork));
        assert_eq!(poll_event(&mut socket, true), ended);
    }
}
