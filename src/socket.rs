//! A WebSocket over an accepted connection, after the upgrade.
//!
//! Small buffers and one poll for both directions: reads go on while a write is blocked. Knows
//! frames and close codes, not users or events. Fails by saying how the connection ended.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::metrics::Closed;
use crate::transport::Transport;
use crate::wire::CloseCode;

/// Allocated for each connection when it opens. Clients say little: a larger message is read in steps.
const READ_BUFFER_BYTES: usize = 256;
/// Bytes queued for a socket before the rest has to wait for a flush.
pub const WRITE_BATCH_BYTES_MAX: usize = 64 * 1024;
/// Beyond a batch or the longest frame: the frame that filled it (NOTIFY's payload is under 8,000 bytes),
/// and control frames.
const SPARE_BYTES: usize = 16 * 1024;
/// Time for a peer to take our close frame and answer it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a socket has to say.
#[derive(Debug)]
pub enum Step {
    /// A text frame came.
    Text(Utf8Bytes),
    /// A binary frame came.
    Binary(Bytes),
    /// A ping or pong came: the peer lives.
    Control,
    /// Everything that was queued is with the kernel.
    Flushed,
    /// Nothing more will come.
    Ended(Closed),
}

/// A server's end of a WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<Transport>,
    /// Bytes queued since the last flush.
    queued: usize,
}

/// The upgraded connection is none of ours.
#[derive(Debug, thiserror::Error)]
#[error("the upgraded connection is not one that was accepted here")]
pub struct NotAccepted;

impl Socket {
    /// Takes over the stream after the 101. `frame_bytes_max` bounds what a client may send.
    ///
    /// # Errors
    /// [`NotAccepted`] for a stream that our accept loop did not make.
    pub async fn from_upgraded(
        upgraded: Upgraded,
        frame_bytes_max: usize,
    ) -> Result<Self, NotAccepted> {
        let parts = upgraded
            .downcast::<TokioIo<Transport>>()
            .map_err(|_| NotAccepted)?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BATCH_BYTES_MAX)
            .max_write_buffer_size(WRITE_BATCH_BYTES_MAX.max(frame_bytes_max) + SPARE_BYTES)
            .max_frame_size(Some(frame_bytes_max))
            .max_message_size(Some(frame_bytes_max));
        // The client's first frame may have come with its request.
        let already_read = parts.read_buf.to_vec();
        let transport = parts.io.into_inner();
        let stream = WebSocketStream::from_partially_read(
            transport,
            already_read,
            Role::Server,
            Some(limits),
        )
        .await;
        Ok(Self { stream, queued: 0 })
    }

    /// Whether something queued has not been flushed.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.queued > 0
    }

    /// Whether another frame may be queued before the next flush.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queued < WRITE_BATCH_BYTES_MAX
    }

    /// Queues a text frame; [`Socket::step`] writes it.
    pub fn queue_text(&mut self, text: Utf8Bytes) -> Result<(), Closed> {
        self.queue(Message::Text(text))
    }

    /// Queues a binary frame.
    pub fn queue_binary(&mut self, bytes: Bytes) -> Result<(), Closed> {
        self.queue(Message::Binary(bytes))
    }

    /// Queues a ping frame.
    pub fn queue_ping(&mut self) -> Result<(), Closed> {
        self.queue(Message::Ping(Bytes::new()))
    }

    fn queue(&mut self, message: Message) -> Result<(), Closed> {
        // At least one, so that an empty frame counts as queued too.
        self.queued += message.len().max(1);
        Pin::new(&mut self.stream)
            .start_send(message)
            .map_err(|error| ending(&error))
    }

    /// Writes what is queued and, if `reading`, reads; whichever is ready first. Cancel-safe.
    pub async fn step(&mut self, reading: bool) -> Step {
        poll_fn(|context| self.poll_step(context, reading)).await
    }

    fn poll_step(&mut self, context: &mut Context<'_>, reading: bool) -> Poll<Step> {
        if self.is_writing() {
            match self.stream.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => {
                    self.queued = 0;
                    return Poll::Ready(Step::Flushed);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Step::Ended(ending(&error))),
                Poll::Pending => {}
            }
        }
        if !reading {
            return Poll::Pending;
        }
        match self.stream.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(match message {
                Message::Text(text) => Step::Text(text),
                Message::Close(_) => Step::Ended(Closed::ByClient),
                Message::Binary(bytes) => Step::Binary(bytes),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Step::Control,
            }),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Step::Ended(ending(&error))),
            Poll::Ready(None) => Poll::Ready(Step::Ended(Closed::ByClient)),
            Poll::Pending => Poll::Pending,
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
            Closed::ByClient => drop(self.stream.flush().await),
            Closed::ByServer(close) => {
                let frame = CloseFrame {
                    code: close.code().into(),
                    reason: close.reason().into(),
                };
                if self.stream.close(Some(frame)).await.is_err() {
                    return;
                }
            }
        }
        // Closing a socket that has unread bytes resets it, and a reset would overtake our close
        // frame: end our side, then read until the peer ends its own.
        let transport = self.stream.get_mut();
        if transport.shutdown().await.is_err() {
            return;
        }
        let mut discarded = [0; 1024];
        while transport
            .read(&mut discarded)
            .await
            .is_ok_and(|bytes| bytes > 0)
        {}
    }
}

/// What an error of the WebSocket says about the connection's end.
fn ending(error: &Error) -> Closed {
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Closed::ByClient,
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Closed::ByServer(CloseCode::TooBig)
        }
        Error::Utf8(_) => Closed::ByServer(CloseCode::Malformed),
        Error::WriteBufferFull(_) => Closed::ByServer(CloseCode::SlowConsumer),
        Error::Protocol(_) | Error::Capacity(_) => Closed::ByServer(CloseCode::Protocol),
        _ => Closed::ByNetwork,
    }
}
