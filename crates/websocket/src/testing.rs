//! What several unit tests need: a client's frames, and a stream whose peer does what the test says.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame::{Frame, Opcode};
use crate::socket::{SocketLimits, Stream};

pub(crate) const LIMITS: SocketLimits = SocketLimits {
    frame_bytes_max: 1_000,
    write_buffer_bytes_max: 2_000,
};

/// A client's frame, masked. `first` is the header's first byte.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let server_frame = Frame::new(Opcode::Text, payload);
    let header_bytes = server_frame.as_bytes().len() - payload.len();
    let mut bytes = server_frame.as_bytes()[..header_bytes].to_vec();
    let mask = [0x12, 0x34, 0x56, 0x78];
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// What one read finds.
pub(crate) enum Read {
    Bytes(Vec<u8>),
    /// As many bytes as the socket takes, and as often as it asks.
    Endless,
    /// Nothing, until [`Seen::wake_reader`].
    Nothing,
    Error,
}

/// What one write or flush does.
#[derive(Clone, Copy)]
pub(crate) enum Write {
    /// Takes at most so many bytes.
    Takes(usize),
    Blocks,
    Error,
}

/// Without a script the peer has closed its side, and takes all that is written.
pub(crate) struct Scripted {
    pub(crate) reads: VecDeque<Read>,
    pub(crate) writes: VecDeque<Write>,
    pub(crate) flushes: VecDeque<Write>,
    pub(crate) shutdown_fails: bool,
    pub(crate) needs_shutdown: bool,
    pub(crate) seen: Arc<Seen>,
}

/// What the socket has done with its stream.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) reads: AtomicUsize,
    pub(crate) read_bytes: AtomicUsize,
    pub(crate) read_bytes_max: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    pub(crate) written: Mutex<Vec<u8>>,
    pub(crate) is_shut_down: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Seen {
    pub(crate) fn wake_reader(&self) {
        let waker = self.reader.lock().unwrap().take();
        waker.unwrap().wake();
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        self.written.lock().unwrap().clone()
    }
}

impl Scripted {
    pub(crate) fn new(reads: impl IntoIterator<Item = Read>) -> Self {
        Self {
            reads: reads.into_iter().collect(),
            writes: VecDeque::new(),
            flushes: VecDeque::new(),
            shutdown_fails: false,
            needs_shutdown: false,
            seen: Arc::default(),
        }
    }
}

impl Stream for Scripted {
    fn needs_shutdown(&self) -> bool {
        self.needs_shutdown
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.seen.reads.fetch_add(1, Relaxed);
        self.seen
            .read_bytes_max
            .fetch_max(buffer.remaining(), Relaxed);
        match self.reads.pop_front() {
            None => {}
            Some(Read::Bytes(bytes)) => buffer.put_slice(&bytes),
            Some(Read::Endless) => {
                let bytes = buffer.initialize_unfilled().len();
                buffer.advance(bytes);
                self.reads.push_front(Read::Endless);
            }
            Some(Read::Nothing) => {
                *self.seen.reader.lock().unwrap() = Some(context.waker().clone());
                return Poll::Pending;
            }
            Some(Read::Error) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
        self.seen
            .read_bytes
            .fetch_add(buffer.filled().len(), Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seen.writes.fetch_add(1, Relaxed);
        let taken = match self.writes.pop_front() {
            None => bytes.len(),
            Some(Write::Takes(most)) => most.min(bytes.len()),
            Some(Write::Blocks) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Write::Error) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let mut written = self.seen.written.lock().unwrap();
        written.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flushes.pop_front() {
            None | Some(Write::Takes(_)) => Poll::Ready(Ok(())),
            Some(Write::Blocks) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Write::Error) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seen.is_shut_down.store(true, Relaxed);
        if self.shutdown_fails {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        Poll::Ready(Ok(()))
    }
}
