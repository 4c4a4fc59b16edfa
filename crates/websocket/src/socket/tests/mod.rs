mod closing;
mod limits;
mod reading;
mod writing;

use std::task::Waker;

use tokio::io::AsyncReadExt;

use super::*;
use crate::testing::{LIMITS, Read, Scripted, Seen, Write, client_frame};

/// A socket and its peer. Each direction holds at most so many bytes that have not been read.
fn pair(in_flight_bytes: usize) -> (Socket<DuplexStream>, DuplexStream) {
    let (stream, peer) = tokio::io::duplex(in_flight_bytes);
    (Socket::new(stream, &[], LIMITS), peer)
}

/// A socket that reads this.
fn scripted(reads: impl IntoIterator<Item = Read>) -> (Socket<Scripted>, Arc<Seen>) {
    let stream = Scripted::new(reads);
    let seen = Arc::clone(&stream.seen);
    (Socket::new(stream, &[], LIMITS), seen)
}

/// One poll for what has arrived.
fn poll_receive<S: Stream>(socket: &mut Socket<S>) -> Poll<SocketEvent> {
    socket.poll_receive(&mut Context::from_waker(Waker::noop()))
}

/// One poll for a flush.
fn poll_flush<S: Stream>(socket: &mut Socket<S>) -> Poll<Result<(), Ended>> {
    socket.poll_flush(&mut Context::from_waker(Waker::noop()))
}

/// One poll of both directions.
fn poll_event<S: Stream>(socket: &mut Socket<S>, reading: bool) -> Poll<SocketEvent> {
    socket.poll_event(&mut Context::from_waker(Waker::noop()), reading)
}

/// The peer reads exactly these bytes next.
async fn expect(peer: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}
