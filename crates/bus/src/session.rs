//! One connection's life, after the login.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{BusCause, BusError};
use crate::event::{BusEvent, GapCause};
use crate::handle::Shared;
use crate::liveness::{Due, Liveness, PONG_MAX, SILENCE_MAX};
use crate::subject::Subject;
use crate::transport::Transport;
use crate::wire::{Incoming, Wire};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes that are encoded for the socket at most, and one message more.
const WRITE_BYTES_MAX: usize = 256 * 1024;
/// A process that was stopped finds its deadlines passed and its broker's answers unread: they are read first.
const SILENCE_GRACE: Duration = Duration::from_millis(50);

type Stream = Box<dyn Transport>;

struct Session<'a, W> {
    shared: &'a Shared,
    wire: W,
    liveness: Liveness,
    /// The subjects that are subscribed to, each with its request.
    subscribed: HashMap<Subject, u64>,
}

/// Runs until the connection is of no more use, and says why. Cancel-safe in so far as the connection is lost.
pub(crate) async fn run<W: Wire>(shared: &Shared, wire: W, stream: Stream) -> BusError {
    let mut session = Session {
        shared,
        wire,
        liveness: Liveness::new(Instant::now()),
        subscribed: HashMap::new(),
    };
    match session.run(stream).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// What has happened on the socket.
enum Progress {
    Read(usize),
    Wrote,
    Flushed,
    Woken,
    Deadline,
}

impl<W: Wire> Session<'_, W> {
    async fn run(&mut self, stream: Stream) -> Result<std::convert::Infallible, BusError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = vec![0; READ_BYTES].into_boxed_slice();
        let mut must_flush = false;
        loop {
            self.encode()?;
            match self
                .wait(&mut reader, &mut writer, &mut buffer, must_flush)
                .await?
            {
                Progress::Read(length) => self.received(&buffer[..length])?,
                Progress::Wrote => must_flush = true,
                Progress::Flushed => must_flush = false,
                Progress::Woken => {}
                Progress::Deadline => self.deadline(&mut reader, &mut buffer).await?,
            }
        }
    }

    async fn wait(
        &mut self,
        reader: &mut ReadHalf<Stream>,
        writer: &mut WriteHalf<Stream>,
        buffer: &mut [u8],
        must_flush: bool,
    ) -> Result<Progress, BusError> {
        let deadline = self.liveness.deadline();
        let out = self.wire.outgoing();
        let must_write = out.has_remaining();
        tokio::select! {
            read = reader.read(buffer) => match read {
                Ok(0) => Err(closed("without a word")),
                Ok(length) => Ok(Progress::Read(length)),
                Err(error) => Err(closed(error)),
            },
            written = write(writer, out), if must_flush || must_write => match written {
                Ok(progress) => Ok(progress),
                // The broker may have said why: the read finds it.
                Err(error) => match timeout(SILENCE_GRACE, reader.read(buffer)).await {
                    Ok(Ok(length @ 1..)) => Ok(Progress::Read(length)),
                    _ => Err(closed(error)),
                },
            },
            () = self.shared.outbound.woken() => Ok(Progress::Woken),
            () = sleep_until(deadline) => Ok(Progress::Deadline),
        }
    }

    /// Encodes what is to be sent, as far as there is room.
    fn encode(&mut self) -> Result<(), BusError> {
        let shared = self.shared;
        if !self.wire.is_confirming()
            && shared.inbound.has_room()
            && let Some(wanted) = shared.outbound.take_wanted()
        {
            self.subscribe(wanted);
        }
        let room = WRITE_BYTES_MAX.saturating_sub(self.wire.outgoing().remaining());
        let taken = shared.outbound.take(room);
        for (subject, payload) in taken.messages {
            self.wire.publish(&subject, payload);
        }
        if taken.reconnect {
            return Err(BusError::new(BusCause::Requested, "by this node"));
        }
        Ok(())
    }

    fn subscribe(&mut self, wanted: HashMap<Subject, u64>) {
        let is_same = |one: &HashMap<Subject, u64>, subject: &Subject, request: &u64| {
            one.get(subject) == Some(request)
        };
        let differing = |from: &HashMap<Subject, u64>, to: &HashMap<Subject, u64>| {
            let differing = from
                .iter()
                .filter(|(subject, request)| !is_same(to, subject, request));
            differing.map(|(subject, _)| subject.clone()).collect()
        };
        let old: Vec<Subject> = differing(&self.subscribed, &wanted);
        let new: Vec<Subject> = differing(&wanted, &self.subscribed);
        if !old.is_empty() || !new.is_empty() {
            self.wire.change(&old, new);
        }
        self.subscribed = wanted;
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        let now = Instant::now();
        let inbound = &self.shared.inbound;
        self.liveness.received(now);
        self.wire.feed(bytes);
        while let Some(incoming) = self.wire.next()? {
            match incoming {
                Incoming::Message { subject, payload } => inbound.message(subject, payload),
                Incoming::Subscribed(subject) => inbound.control(BusEvent::Subscribed(subject)),
                Incoming::Pong => self.liveness.pong(now),
                Incoming::Unsubscribed(subject) => {
                    self.subscribed.remove(&subject);
                    if self.shared.outbound.renew(&subject) {
                        inbound.control(BusEvent::Gap(GapCause::Unsubscribed(subject)));
                    }
                }
            }
        }
        Ok(())
    }

    async fn deadline(
        &mut self,
        reader: &mut ReadHalf<Stream>,
        buffer: &mut [u8],
    ) -> Result<(), BusError> {
        match self.liveness.due(Instant::now()) {
            Due::Nothing => Ok(()),
            Due::Ping => {
                self.wire.ping();
                Ok(())
            }
            Due::Silent => {
                if let Ok(Ok(length @ 1..)) = timeout(SILENCE_GRACE, reader.read(buffer)).await {
                    self.received(&buffer[..length])?;
                    if self.liveness.deadline() > Instant::now() {
                        return Ok(());
                    }
                }
                let detail = format!(
                    "nothing came for {} s after a ping, or no answer to it for {} s",
                    SILENCE_MAX.as_secs(),
                    PONG_MAX.as_secs()
                );
                Err(BusError::new(BusCause::Silent, detail))
            }
        }
    }
}

/// Writes a part of `out`, or flushes if there is nothing. Cancel-safe.
async fn write(writer: &mut WriteHalf<Stream>, out: &mut impl Buf) -> io::Result<Progress> {
    if out.has_remaining() {
        writer.write_buf(out).await?;
        return Ok(Progress::Wrote);
    }
    writer.flush().await?;
    Ok(Progress::Flushed)
}

fn closed(detail: impl std::fmt::Display) -> BusError {
    BusError::new(BusCause::Closed, detail)
}
