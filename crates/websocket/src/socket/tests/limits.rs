//! What a socket holds.

use tokio::io::AsyncWriteExt;

use super::*;

#[test]
fn the_bound_is_the_sum_of_what_is_held() {
    let decoder = Decoder::held_bytes_max(1_000, 4_096);
    assert_eq!(LIMITS.held_bytes_max(500), decoder + 2_000 + 500);
}

#[tokio::test]
async fn a_blocked_socket_with_a_hostile_peer_holds_no_more_than_the_bound() {
    let (mut socket, mut peer) = pair(4_096);
    let longest = Frame::text(&"x".repeat(496));
    let bound = LIMITS.held_bytes_max(longest.as_bytes().len());
    let client = async {
        // Each message and frame as long as the limit, in pieces that end anywhere.
        let fragments = [
            client_frame(0x01, &[b'x'; 600]),
            client_frame(0x00, &[b'x'; 399]),
            client_frame(0x89, &[0; 125]),
            client_frame(0x80, &[b'x'; 1]),
            client_frame(0x82, &[0; 1_000]),
        ];
        for bytes in fragments.concat().repeat(20).chunks(3_000) {
            peer.write_all(bytes).await.unwrap();
        }
        peer.shutdown().await.unwrap();
        peer
    };
    let server = async {
        let mut most = 0;
        loop {
            while socket.has_room() {
                socket.queue(longest.clone());
            }
            let event = socket.next_event(true).await;
            most = most.max(socket.decoder.held_bytes() + socket.write_buffer.held_bytes());
            if matches!(event, SocketEvent::Ended(_)) {
                return (event, most);
            }
        }
    };
    let ((event, most), _peer) = tokio::join!(server, client);
    assert_eq!(event, SocketEvent::Ended(Ended::ByPeer));
    assert!(most <= bound, "{most} > {bound}");
    assert!(most > bound / 2, "{most}: the bound was not approached");
}

#[test]
fn there_is_room_for_another_frame_until_the_bound() {
    let (mut socket, _peer) = pair(1);
    socket.queue(Frame::text(&"x".repeat(1_995)));
    assert!(socket.has_room());
    socket.queue(Frame::text(""));
    assert!(!socket.has_room());
}

#[cfg(target_pointer_width = "64")]
#[test]
fn a_socket_adds_80_bytes_to_its_stream() {
    let socket = size_of::<Socket<DuplexStream>>();
    assert_eq!(socket - size_of::<DuplexStream>(), 80);
}
