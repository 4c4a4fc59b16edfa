//! How a connection is closed by either side.

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

const RESTART: Close = Close::Start {
    code: 1012,
    reason: "restart",
};
const RESTART_BYTES: &[u8] = b"\x88\x09\x03\xf4restart";

fn is_shut_down(seen: &Seen) -> bool {
    seen.is_shut_down.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_close_sends_what_is_queued_then_its_frame_then_the_end_of_our_side() {
    let (mut socket, mut peer) = pair(7);
    socket.queue(Frame::text("last"));
    let client = async {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, [b"\x81\x04last", RESTART_BYTES].concat());
        drop(peer);
    };
    let begun = Instant::now();
    tokio::join!(socket.close(RESTART), client);
    assert!(begun.elapsed() < CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_its_side_is_dropped_after_2_s() {
    let (socket, mut peer) = pair(1_000);
    let begun = Instant::now();
    socket.close(RESTART).await;
    assert_eq!(begun.elapsed().as_secs(), 2);
    expect(&mut peer, RESTART_BYTES).await;
    assert!(peer.write_all(b"too late").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_dropped_after_2_s() {
    let (mut socket, _peer) = pair(4);
    socket.queue(Frame::text("more than the stream holds"));
    let begun = Instant::now();
    socket.close(RESTART).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_the_peer_had_in_flight_are_discarded_until_it_closes() {
    let (socket, mut peer) = pair(64);
    let client = async {
        for _ in 0..100 {
            peer.write_all(&client_frame(0x81, b"in flight"))
                .await
                .unwrap();
        }
        expect(&mut peer, RESTART_BYTES).await;
        peer.write_all(&client_frame(0x88, b"\x03\xf4"))
            .await
            .unwrap();
        peer.shutdown().await.unwrap();
    };
    let begun = Instant::now();
    tokio::join!(socket.close(RESTART), client);
    assert!(begun.elapsed() < CLOSE_TIMEOUT);
}

#[tokio::test]
async fn of_a_peer_that_sends_on_256_kib_are_discarded() {
    let (socket, seen) = scripted([Read::Endless]);
    socket.close(RESTART).await;
    assert_eq!(seen.read_bytes.load(Relaxed), 256 << 10);
    assert_eq!(seen.reads.load(Relaxed), 64);
}

#[tokio::test]
async fn other_tasks_run_between_the_reads_of_what_is_discarded() {
    let (socket, seen) = scripted([Read::Endless]);
    let other = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            let mut reads_seen = vec![0];
            while reads_seen.last() != Some(&64) {
                let reads = seen.reads.load(Relaxed);
                assert!(reads <= reads_seen.last().unwrap() + 1);
                reads_seen.push(reads);
                tokio::task::yield_now().await;
            }
        }
    });
    socket.close(RESTART).await;
    other.await.unwrap();
}

#[tokio::test]
async fn an_abort_sends_nothing() {
    let (mut socket, seen) = scripted([Read::Endless]);
    socket.queue(Frame::text("{}"));
    socket.close(Close::Abort).await;
    assert_eq!(seen.written(), b"");
    assert!(!is_shut_down(&seen));
    assert_eq!(seen.reads.load(Relaxed), 0);
}

#[tokio::test]
async fn the_answer_to_a_close_frame_is_sent_before_our_side_ends() {
    let close = client_frame(0x88, b"\x03\xe8");
    let (mut socket, seen) = scripted([Read::Bytes(close)]);
    let ended = SocketEvent::Ended(Ended::ByPeer);
    assert_eq!(socket.next_event(true).await, ended);
    socket.close(Close::Answer).await;
    assert_eq!(seen.written(), b"\x88\x02\x03\xe8");
    assert!(is_shut_down(&seen));
    assert_eq!(seen.reads.load(Relaxed), 2, "until the peer's side ends");
}

#[tokio::test]
async fn after_the_peer_s_end_a_stream_is_shut_down_only_if_it_needs_that() {
    for needs_shutdown in [false, true] {
        let (mut socket, seen) = scripted([]);
        socket.stream.needs_shutdown = needs_shutdown;
        socket.queue(Frame::text("{}"));
        assert!(!socket.closes_at_once(Close::Answer));
        let ended = Poll::Ready(SocketEvent::Ended(Ended::ByPeer));
        assert_eq!(poll_receive(&mut socket), ended);
        assert!(socket.closes_at_once(Close::Answer));
        socket.close(Close::Answer).await;
        assert_eq!(seen.written(), b"\x81\x02{}");
        assert_eq!(is_shut_down(&seen), needs_shutdown);
    }
}

#[tokio::test]
async fn a_peer_that_has_closed_only_its_own_side_gets_everything() {
    let (mut socket, mut peer) = pair(64);
    peer.write_all(&client_frame(0x81, b"last")).await.unwrap();
    peer.shutdown().await.unwrap();
    let last = SocketEvent::Text("last".to_owned());
    assert_eq!(socket.next_event(true).await, last);
    let ended = SocketEvent::Ended(Ended::ByPeer);
    assert_eq!(socket.next_event(true).await, ended);
    socket.queue(Frame::text("answer"));
    socket.close(RESTART).await;
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, [b"\x81\x06answer", RESTART_BYTES].concat());
}

#[tokio::test]
async fn a_stream_that_cannot_be_written_is_not_shut_down() {
    let (mut socket, seen) = scripted([Read::Endless]);
    socket.stream.writes = [Write::Error].into();
    socket.close(RESTART).await;
    assert!(!is_shut_down(&seen));
    assert_eq!(seen.reads.load(Relaxed), 0);
}

#[tokio::test]
async fn a_stream_that_cannot_be_shut_down_is_not_read() {
    let (mut socket, seen) = scripted([Read::Endless]);
    socket.stream.shutdown_fails = true;
    socket.close(RESTART).await;
    assert!(is_shut_down(&seen));
    assert_eq!(seen.reads.load(Relaxed), 0);
}

#[tokio::test]
async fn a_read_that_fails_ends_the_discarding() {
    let (socket, seen) = scripted([Read::Bytes(vec![7; 10]), Read::Error, Read::Endless]);
    socket.close(RESTART).await;
    assert_eq!(seen.reads.load(Relaxed), 2);
}

#[test]
fn only_an_abort_and_a_peer_that_has_ended_are_closed_at_once() {
    let (socket, _) = scripted([]);
    assert!(socket.closes_at_once(Close::Abort));
    assert!(!socket.closes_at_once(Close::Answer));
    assert!(!socket.closes_at_once(RESTART));
}

#[tokio::test]
async fn tcp_and_in_memory_streams_need_no_shutdown() {
    let (in_memory, _peer) = tokio::io::duplex(1);
    assert!(!in_memory.needs_shutdown());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    assert!(!tcp.needs_shutdown());
}
