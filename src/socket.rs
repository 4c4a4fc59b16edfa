//! A WebSocket over an accepted connection, after the upgrade.
//!
//! One poll for both directions: reads go on while a write is blocked. Holds no buffer for a socket that is
//! silent in both. Knows frames and close codes, not users or events. Fails by saying how the connection
//! ended.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use self::arrivals::Arrivals;
pub use self::goodbyes::Goodbyes;
use self::outgoing::Outgoing;
use crate::edge::Transport;
use crate::frame::{Decoder, Frame, Incoming, Violation};
use crate::protocol::{CloseCode, Closed};

mod arrivals;
mod goodbyes;
mod outgoing;

/// The most that is read at once; on the stack.
const READ_BYTES: usize = 4 * 1024;
/// Time for a peer to take our close frame and answer it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a peer may still send after that: more than an honest one has under way. Beyond it the connection
/// is reset, and our close frame perhaps lost with it.
const DISCARDED_BYTES_MAX: usize = 256 * 1024;

/// How much of one socket's bytes are held here.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// Longest frame and message of a client.
    pub frame_bytes_max: usize,
    /// Bytes that wait for the socket before more is not taken.
    pub write_buffer_bytes_max: usize,
}

impl SocketLimits {
    /// What one socket may hold, in bytes, if no frame for it is longer than `sent_bytes_max`.
    #[must_use]
    pub fn held_bytes_max(self, sent_bytes_max: usize) -> usize {
        Decoder::held_bytes_max(self.frame_bytes_max, READ_BYTES)
            + self.write_buffer_bytes_max
            + sent_bytes_max
    }
}

/// What a socket has to say.
#[derive(Debug)]
pub enum Step {
    /// A text message came.
    Text(String),
    /// A binary message came.
    Binary(Vec<u8>),
    /// A ping, a pong or a part of a message came: the peer lives.
    Heard,
    /// Everything that was queued is with the kernel.
    Flushed,
    /// Nothing more will come.
    Ended(Closed),
}

/// A server's end of a WebSocket.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    arrivals: Arc<Arrivals>,
    incoming: Decoder,
    outgoing: Outgoing,
    /// The answer to the newest ping, while others are being written.
    pong: Option<Frame>,
}

/// The upgraded connection is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("the upgraded connection is not one that was accepted here")]
pub struct NotAccepted;

impl Socket {
    /// Takes over the stream after the 101.
    ///
    /// # Errors
    /// [`NotAccepted`] for a stream that our accept loop did not make.
    pub fn from_upgraded(upgraded: Upgraded, limits: SocketLimits) -> Result<Self, NotAccepted> {
        let parts = upgraded
            .downcast::<TokioIo<Transport>>()
            .map_err(|_| NotAccepted)?;
        let mut incoming = Decoder::new(limits.frame_bytes_max);
        // The client's first frame may have come with its request.
        if !parts.read_buf.is_empty() {
            incoming.feed(&parts.read_buf);
        }
        Ok(Self {
            transport: parts.io.into_inner(),
            arrivals: Arc::default(),
            incoming,
            outgoing: Outgoing::new(limits.write_buffer_bytes_max),
            pong: None,
        })
    }

    /// Whether something queued has not been flushed.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.outgoing.is_empty() || self.pong.is_some()
    }

    /// Whether another frame may be queued before the next flush.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outgoing.has_room()
    }

    /// Queues a frame; [`Socket::step`] writes it. What is queued beyond [`Socket::has_room`] is held
    /// none the less: whoever queues many asks first.
    pub fn queue(&mut self, frame: Frame) {
        self.outgoing.queue(frame);
    }

    /// Writes what is queued and, if `reading`, reads; whichever is ready first. Cancel-safe.
    pub async fn step(&mut self, reading: bool) -> Step {
        poll_fn(|context| self.poll_step(context, reading)).await
    }

    fn poll_step(&mut self, context: &mut Context<'_>, reading: bool) -> Poll<Step> {
        if self.is_writing()
            && let Poll::Ready(flushed) = self.poll_flush(context)
        {
            return Poll::Ready(match flushed {
                Ok(()) => Step::Flushed,
                Err(closed) => Step::Ended(closed),
            });
        }
        if reading {
            self.poll_incoming(context)
        } else {
            Poll::Pending
        }
    }

    /// Reads.
    pub fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        loop {
            match self.incoming.decode() {
                Ok(Some(incoming)) => return Poll::Ready(self.take(incoming)),
                Ok(None) => {}
                Err(violation) => return Poll::Ready(Step::Ended(ending(violation))),
            }
            if !self.arrivals.poll_any(context) {
                return Poll::Pending;
            }
            let mut piece = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut piece = ReadBuf::uninit(&mut piece);
            let waker = Arc::clone(&self.arrivals).into();
            let transport = Pin::new(&mut self.transport);
            match ready!(transport.poll_read(&mut Context::from_waker(&waker), &mut piece)) {
                Ok(()) if piece.filled().is_empty() => {
                    self.arrivals.end();
                    return Poll::Ready(Step::Ended(Closed::ByClient));
                }
                Ok(()) => self.incoming.feed(piece.filled()),
                Err(_) => return Poll::Ready(Step::Ended(Closed::ByNetwork)),
            }
            // There may be more.
            self.arrivals.expect_more();
        }
    }

    fn take(&mut self, incoming: Incoming) -> Step {
        match incoming {
            Incoming::Text(text) => Step::Text(text),
            Incoming::Binary(bytes) => Step::Binary(bytes),
            Incoming::Ping(pong) if self.is_writing() => {
                // One at most waits: an older ping need not be answered (RFC 6455, 5.5.3).
                self.pong = Some(pong);
                Step::Heard
            }
            Incoming::Ping(pong) => {
                self.outgoing.queue(pong);
                Step::Heard
            }
            Incoming::Pong | Incoming::Fragment => Step::Heard,
            Incoming::Close(answer) => {
                self.outgoing.queue(answer);
                Step::Ended(Closed::ByClient)
            }
        }
    }

    /// Ready when everything is with the kernel.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        loop {
            while let Some(bytes) = self.outgoing.unwritten() {
                match ready!(Pin::new(&mut self.transport).poll_write(context, bytes)) {
                    Ok(0) | Err(_) => return Poll::Ready(Err(Closed::ByNetwork)),
                    Ok(written) => self.outgoing.advance(written),
                }
            }
            match ready!(Pin::new(&mut self.transport).poll_flush(context)) {
                Ok(()) => {}
                Err(_) => return Poll::Ready(Err(Closed::ByNetwork)),
            }
            match self.pong.take() {
                Some(pong) => self.outgoing.queue(pong),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Says goodbye as the ending demands and waits, for at most [`CLOSE_TIMEOUT`], until the peer
    /// has taken it.
    pub async fn close(self, ending: Closed) {
        // A peer that does not take the goodbye has the timeout: there is nobody left to tell.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.say_goodbye(ending)).await;
    }

    async fn say_goodbye(mut self, ending: Closed) {
        match ending {
            Closed::ByNetwork => return,
            // The answer to the client's close frame is already queued.
            Closed::ByClient => {}
            Closed::ByServer(close) => self.queue(Frame::close(close.code(), close.reason())),
        }
        if poll_fn(|context| self.poll_flush(context)).await.is_err() {
            return;
        }
        // All has been read: closing the socket is goodbye enough. TLS has one of its own.
        if self.arrivals.are_over() && matches!(self.transport, Transport::Plain(_)) {
            return;
        }
        // Closing a socket that has unread bytes resets it, and a reset would overtake our close
        // frame: end our side, then read until the peer ends its own.
        if self.transport.shutdown().await.is_err() {
            return;
        }
        self.discard().await;
    }

    /// Reads until the peer ends its side. Who sends on and on is not read to the end, and between two reads
    /// the others have their turn.
    async fn discard(&mut self) {
        let mut left = DISCARDED_BYTES_MAX;
        while left > 0 {
            let read = poll_fn(|context| {
                let mut piece = [const { MaybeUninit::uninit() }; READ_BYTES];
                let mut piece = ReadBuf::uninit(&mut piece);
                let transport = Pin::new(&mut self.transport);
                ready!(transport.poll_read(context, &mut piece))?;
                Poll::Ready(std::io::Result::Ok(piece.filled().len()))
            });
            match read.await {
                Ok(bytes) if bytes > 0 => left = left.saturating_sub(bytes),
                _ => return,
            }
            tokio::task::yield_now().await;
        }
    }
}

/// How a connection ends that a client has broken.
fn ending(violation: Violation) -> Closed {
    Closed::ByServer(match violation {
        Violation::Protocol => CloseCode::Protocol,
        Violation::TooBig => CloseCode::TooBig,
        Violation::NotUtf8 => CloseCode::Malformed,
    })
}
