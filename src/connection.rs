//! One WebSocket client's life, from the upgrade to the close.
//!
//! A single task owns the socket, the place in the hub and one timer. It reads always, also while a
//! write is blocked; the one exception is a client that asks without reading the answers: an answer
//! that waits for a blocked socket stops the reading, so that nothing a client sends piles up here.
//! Events that are ready together are written together and flushed once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::hub::Subscription;
use crate::latency::LatencySampler;
use crate::metrics::{Closed, Metrics};
use crate::socket::{Socket, Step};
use crate::wire::{Answer, ClientFrame, CloseCode, Encoding, Event};

/// What every connection of a server has in common.
#[derive(Debug)]
pub struct Shared {
    /// Silence after which the client is pinged.
    pub ping_interval: Duration,
    /// Time to answer a ping.
    pub pong_timeout: Duration,
    /// Time that a write may be blocked.
    pub write_timeout: Duration,
    /// Largest frame and message that a client may send, in bytes.
    pub frame_bytes_max: usize,
    /// Where deliveries are counted.
    pub metrics: Arc<Metrics>,
    /// Where deliveries are sampled.
    pub latency: LatencySampler,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

/// A client that is connected.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    socket: Socket,
    subscription: Subscription,
    encoding: Encoding,
    /// When the client was last heard.
    heard: Instant,
    /// When the ping was sent that has not been answered.
    pinged: Option<Instant>,
    /// When the write began that has not been flushed.
    writing_since: Option<Instant>,
    /// The answer that waits for the socket.
    owed: Option<Answer>,
    /// The oldest event of the batch that is being written.
    oldest_unflushed: Option<i64>,
}

impl Connection {
    /// A client whose subscription was taken before its 101 was sent: what is committed after the
    /// client sees the connection open reaches it.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        socket: Socket,
        subscription: Subscription,
        encoding: Encoding,
    ) -> Self {
        Self {
            shared,
            socket,
            subscription,
            encoding,
            heard: Instant::now(),
            pinged: None,
            writing_since: None,
            owed: None,
            oldest_unflushed: None,
        }
    }

    /// Serves the client until either side ends it, closes the socket and says why.
    pub async fn run(mut self) -> Closed {
        let ending = match self.serve().await {
            Ok(never) => match never {},
            Err(ending) => ending,
        };
        let Self {
            socket,
            subscription,
            ..
        } = self;
        // Nothing more is delivered: give the place in the hub up before the goodbye.
        drop(subscription);
        socket.close(ending).await;
        ending
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, Closed> {
        let shared = Arc::clone(&self.shared);
        let mut stopped = pin!(shared.stop.cancelled());
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            let (reading, writing) = (self.owed.is_none(), self.socket.is_writing());
            tokio::select! {
                biased;
                () = &mut stopped => return Err(Closed::ByServer(CloseCode::Restart)),
                step = self.socket.step(reading) => self.take_step(step)?,
                event = self.subscription.receiver().recv(), if !writing => {
                    self.take_events(event)?;
                }
                () = &mut timer => self.take_tick()?,
            }
            if self.deadline() < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(self.deadline());
            }
        }
    }

    fn take_step(&mut self, step: Step) -> Result<(), Closed> {
        match step {
            Step::Ended(closed) => return Err(closed),
            Step::Flushed => {
                self.writing_since = None;
                if let Some(id) = self.oldest_unflushed.take() {
                    self.shared.latency.delivered(id);
                }
                if let Some(answer) = self.owed.take() {
                    self.answer(answer)?;
                }
            }
            Step::Control => self.hear(),
            Step::Text(text) => {
                self.hear();
                let answer = match ClientFrame::parse(&text) {
                    Ok(ClientFrame::Ping) => Answer::Pong,
                    Ok(ClientFrame::Unknown) => Answer::UnknownType,
                    Err(_) => return Err(Closed::ByServer(CloseCode::Malformed)),
                };
                if self.socket.is_writing() {
                    self.owed = Some(answer);
                } else {
                    self.answer(answer)?;
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.pinged = None;
    }

    fn answer(&mut self, answer: Answer) -> Result<(), Closed> {
        self.socket.queue_text(answer.frame())?;
        self.begin_write();
        Ok(())
    }

    /// Queues the event that woke us and all that wait behind it.
    fn take_events(&mut self, first: Result<Arc<Event>, RecvError>) -> Result<(), Closed> {
        let mut next = first.map_err(|error| match error {
            RecvError::Lagged(missed) => TryRecvError::Lagged(missed),
            RecvError::Closed => TryRecvError::Closed,
        });
        let mut drained = 0;
        loop {
            match next {
                Ok(event) => {
                    drained += 1;
                    self.queue_event(&event)?;
                }
                Err(TryRecvError::Lagged(missed)) => self.shared.metrics.lagged(missed),
                Err(TryRecvError::Empty) => break,
                // The hub keeps a sender while there is a receiver.
                Err(TryRecvError::Closed) => return Err(Closed::ByServer(CloseCode::Restart)),
            }
            if !self.socket.has_room() {
                break;
            }
            next = self.subscription.receiver().try_recv();
        }
        self.shared.metrics.backlog_drained(drained);
        Ok(())
    }

    fn queue_event(&mut self, event: &Event) -> Result<(), Closed> {
        self.socket.queue_text(event.frame(self.encoding))?;
        self.begin_write();
        self.oldest_unflushed = self.oldest_unflushed.or(event.id);
        self.shared.metrics.event_delivered(event.kind);
        Ok(())
    }

    fn begin_write(&mut self) {
        self.writing_since.get_or_insert_with(Instant::now);
    }

    /// When the timer has to look next.
    fn deadline(&self) -> Instant {
        let silence = match self.pinged {
            Some(pinged) => pinged + self.shared.pong_timeout,
            None => self.heard + self.shared.ping_interval,
        };
        match self.writing_since {
            Some(since) => silence.min(since + self.shared.write_timeout),
            None => silence,
        }
    }

    fn take_tick(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        if self
            .writing_since
            .is_some_and(|since| now >= since + self.shared.write_timeout)
        {
            return Err(Closed::ByServer(CloseCode::SlowConsumer));
        }
        if self
            .pinged
            .is_some_and(|pinged| now >= pinged + self.shared.pong_timeout)
        {
            return Err(Closed::ByServer(CloseCode::IdleTimeout));
        }
        if self.pinged.is_none() && now >= self.heard + self.shared.ping_interval {
            self.socket.queue_ping()?;
            self.begin_write();
            self.pinged = Some(now);
        }
        Ok(())
    }
}
