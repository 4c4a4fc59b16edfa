//! A server's end of one WebSocket, after the handshake.
//!
//! One poll serves both directions, so that reads go on while a write is blocked. The socket holds no
//! buffer while it is silent in both. It answers pings, and passes everything else on as a
//! [`SocketEvent`]. It fails by saying how the connection has [`Ended`].

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use crate::decoder::{Decoder, Incoming, Violation};
use crate::frame::Frame;
use crate::readiness::Readiness;
use crate::write_buffer::WriteBuffer;

/// The most that one read returns. The buffer is on the stack.
const READ_BYTES: usize = 4 * 1024;
/// Time for a peer to read our close frame and to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read of a peer, and discarded, after our close frame: more than an honest peer has in flight. A
/// peer that sends more is reset, which may destroy our close frame on its way.
const DISCARDED_BYTES_MAX: usize = 256 * 1024;

/// The stream of bytes under a socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Whether the stream has to be shut down before it is dropped, so that the peer sees an orderly end
    /// even after it has closed its own side. TLS has a message of its own for that; for TCP the drop is
    /// enough.
    fn needs_shutdown(&self) -> bool;
}

impl Stream for TcpStream {
    fn needs_shutdown(&self) -> bool {
        false
    }
}

impl Stream for DuplexStream {
    fn needs_shutdown(&self) -> bool {
        false
    }
}

/// Bounds on the bytes that one socket holds.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// The longest frame and message that a client may send, in bytes of payload.
    pub frame_bytes_max: usize,
    /// The unwritten bytes from which on the socket has no room for another frame.
    pub write_buffer_bytes_max: usize,
}

impl SocketLimits {
    /// The most memory that one socket holds, in bytes, if no frame for it is longer than
    /// `sent_bytes_max` and none is queued without room.
    #[must_use]
    pub fn held_bytes_max(self, sent_bytes_max: usize) -> usize {
        Decoder::held_bytes_max(self.frame_bytes_max, READ_BYTES)
            + self.write_buffer_bytes_max
            + sent_bytes_max
    }
}

/// What has happened on a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// A text message has arrived.
    Text(String),
    /// A binary message has arrived.
    Binary(Vec<u8>),
    /// A ping, a pong or a fragment has arrived: the peer is alive.
    Alive,
    /// Everything that was queued is with the kernel.
    Flushed,
    /// The connection has ended. The socket can only be closed now.
    Ended(Ended),
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The peer has sent a close frame, whose answer is queued, or has closed its side of the stream.
    #[error("the peer has closed the connection")]
    ByPeer,
    /// Reading or writing has failed.
    #[error("the network has broken the connection")]
    ByNetwork,
    /// The peer has violated the protocol.
    #[error("the peer has sent {0}")]
    ByViolation(#[from] Violation),
}

/// How to close a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Drop the connection: the network has broken it.
    Abort,
    /// Send what is queued: the peer has closed, and the answer to its close frame is in the queue.
    Answer,
    /// Send what is queued and a close frame.
    Start {
        /// The close code (RFC 6455, 7.4).
        code: u16,
        /// The reason, of at most 123 bytes.
        reason: &'static str,
    },
}

/// A server's end of a WebSocket.
#[derive(Debug)]
pub struct Socket<S> {
    stream: S,
    readiness: Arc<Readiness>,
    decoder: Decoder,
    write_buffer: WriteBuffer,
    /// The pong for the newest ping, while other frames are being written.
    pong: Option<Frame>,
}

impl<S: Stream> Socket<S> {
    /// Takes over the stream after the handshake's response. `received` is what the client has sent after
    /// its request and has been read with it.
    #[must_use]
    pub fn new(stream: S, received: &[u8], limits: SocketLimits) -> Self {
        let mut decoder = Decoder::new(limits.frame_bytes_max);
        if !received.is_empty() {
            decoder.feed(received);
        }
        Self {
            stream,
            readiness: Arc::default(),
            decoder,
            write_buffer: WriteBuffer::new(limits.write_buffer_bytes_max),
            pong: None,
        }
    }

    /// Whether something queued has not been flushed.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.write_buffer.is_empty() || self.pong.is_some()
    }

    /// Whether another frame may be queued before the next flush.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.write_buffer.has_room()
    }

    /// Queues a frame, which [`Socket::next_event`] and [`Socket::poll_flush`] write. A frame is queued also
    /// without room: a caller with many frames has to ask [`Socket::has_room`] before each.
    pub fn queue(&mut self, frame: Frame) {
        self.write_buffer.queue(frame);
    }

    /// Writes what is queued and, if `reading`, reads. Returns the first event of either. Cancel-safe.
    pub async fn next_event(&mut self, reading: bool) -> SocketEvent {
        poll_fn(|context| self.poll_event(context, reading)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>, reading: bool) -> Poll<SocketEvent> {
        if self.is_writing()
            && let Poll::Ready(flushed) = self.poll_flush(context)
        {
            return Poll::Ready(match flushed {
                Ok(()) => SocketEvent::Flushed,
                Err(ended) => SocketEvent::Ended(ended),
            });
        }
        if reading {
            self.poll_receive(context)
        } else {
            Poll::Pending
        }
    }

    /// Reads until a frame is complete or nothing is there.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<SocketEvent> {
        loop {
            match self.decoder.decode() {
                Ok(Some(incoming)) => return Poll::Ready(self.receive(incoming)),
                Ok(None) => {}
                Err(violation) => return Poll::Ready(SocketEvent::Ended(violation.into())),
            }
            if !self.readiness.poll(context) {
                return Poll::Pending;
            }
            let mut piece = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut piece = ReadBuf::uninit(&mut piece);
            let waker = Arc::clone(&self.readiness).into();
            let stream = Pin::new(&mut self.stream);
            match ready!(stream.poll_read(&mut Context::from_waker(&waker), &mut piece)) {
                Ok(()) if piece.filled().is_empty() => {
                    self.readiness.set_ended();
                    return Poll::Ready(SocketEvent::Ended(Ended::ByPeer));
                }
                Ok(()) => self.decoder.feed(piece.filled()),
                Err(_) => return Poll::Ready(SocketEvent::Ended(Ended::ByNetwork)),
            }
            // The stream wakes only after a read that finds nothing.
            self.readiness.set_ready();
        }
    }

    fn receive(&mut self, incoming: Incoming) -> SocketEvent {
        match incoming {
            Incoming::Text(text) => SocketEvent::Text(text),
            Incoming::Binary(bytes) => SocketEvent::Binary(bytes),
            Incoming::Ping(pong) if self.is_writing() => {
                // Only the newest pong is kept: older pings need no answer (RFC 6455, 5.5.3).
                self.pong = Some(pong);
                SocketEvent::Alive
            }
            Incoming::Ping(pong) => {
                self.write_buffer.queue(pong);
                SocketEvent::Alive
            }
            Incoming::Pong | Incoming::Fragment => SocketEvent::Alive,
            Incoming::Close(answer) => {
                self.write_buffer.queue(answer);
                SocketEvent::Ended(Ended::ByPeer)
            }
        }
    }

    /// Ready when everything queued is with the kernel.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            while let Some(bytes) = self.write_buffer.unwritten() {
                match ready!(Pin::new(&mut self.stream).poll_write(context, bytes)) {
                    Ok(0) | Err(_) => return Poll::Ready(Err(Ended::ByNetwork)),
                    Ok(written) => self.write_buffer.advance(written),
                }
            }
            if ready!(Pin::new(&mut self.stream).poll_flush(context)).is_err() {
                return Poll::Ready(Err(Ended::ByNetwork));
            }
            let Some(pong) = self.pong.take() else {
                self.write_buffer.flushed();
                return Poll::Ready(Ok(()));
            };
            self.write_buffer.queue(pong);
        }
    }

    /// Closes the connection, and waits until the peer has closed its side, for at most
    /// [`CLOSE_TIMEOUT`].
    pub async fn close(self, close: Close) {
        // After the timeout the connection is dropped as well.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.close_in_order(close)).await;
    }

    /// Whether [`Socket::close`] has next to nothing to do.
    pub(crate) fn closes_at_once(&self, close: Close) -> bool {
        close == Close::Abort || self.readiness.has_ended()
    }

    async fn close_in_order(mut self, close: Close) {
        match close {
            Close::Abort => return,
            Close::Answer => {}
            Close::Start { code, reason } => self.queue(Frame::close(code, reason)),
        }
        if poll_fn(|context| self.poll_flush(context)).await.is_err() {
            return;
        }
        // Everything has been read, so that dropping the stream does not reset it.
        if self.readiness.has_ended() && !self.stream.needs_shutdown() {
            return;
        }
        // Dropping a stream with unread bytes resets it, and a reset would overtake our close frame. So
        // only our side is shut down, and the peer's is read to its end.
        if self.stream.shutdown().await.is_err() {
            return;
        }
        self.discard().await;
    }

    /// Reads until the peer closes its side, but not more than [`DISCARDED_BYTES_MAX`]. Yields between
    /// reads, so that a peer that keeps sending does not keep other tasks waiting.
    async fn discard(&mut self) {
        let mut left = DISCARDED_BYTES_MAX;
        while left > 0 {
            let read = poll_fn(|context| {
                let mut piece = [const { MaybeUninit::uninit() }; READ_BYTES];
                let mut piece = ReadBuf::uninit(&mut piece);
                let stream = Pin::new(&mut self.stream);
                ready!(stream.poll_read(context, &mut piece))?;
                Poll::Ready(io::Result::Ok(piece.filled().len()))
            });
            match read.await {
                Ok(bytes) if bytes > 0 => left = left.saturating_sub(bytes),
                _ => return,
            }
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;
