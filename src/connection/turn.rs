//! What a connection waits for, and how its socket is served meanwhile.
//!
//! Live, it waits for events and its socket, and for nothing else. While a write is blocked or a replay is
//! not over, it waits for more, with timers of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep_until;

use super::client::{Connection, Shared};
use super::replay;
use crate::protocol::{Closed, Event};
use crate::socket::Step;

/// What a connection has waited for.
#[derive(Debug)]
pub(super) enum Turn {
    /// The subscription brought something.
    Event(Result<Arc<Event>, RecvError>),
    /// The socket has something to say.
    Step(Step),
    /// The kernel does not take all that is to be written.
    Blocked,
    /// It has been dealt with.
    Done,
}

/// The events that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    first: Option<Arc<Event>>,
    events: u32,
}

impl Batch {
    pub(super) fn add(&mut self, event: Arc<Event>) {
        self.first.get_or_insert(event);
        self.events += 1;
    }

    /// They are with the kernel.
    pub(super) fn delivered(&mut self, shared: &Shared) {
        if let Some(first) = self.first.take() {
            shared.latency.delivered(&first);
            shared
                .metrics
                .backlog_drained(std::mem::take(&mut self.events));
        }
    }
}

impl Connection {
    /// Waits for events, and writes them when no more are waiting. Nothing else is looked at here: the
    /// clock and the drain wake the connection by an event. Cancel-safe.
    pub(super) async fn unencumbered_turn(&mut self) -> Turn {
        let has_room = self.socket.has_room();
        let asked = self.owed.is_some();
        let socket = poll_fn(|context| {
            if self.socket.is_writing() {
                match self.socket.poll_flush(context) {
                    Poll::Pending => return Poll::Ready(Turn::Blocked),
                    Poll::Ready(Err(closed)) => {
                        return Poll::Ready(Turn::Step(Step::Ended(closed)));
                    }
                    Poll::Ready(Ok(())) if asked || !has_room => {
                        return Poll::Ready(Turn::Step(Step::Flushed));
                    }
                    Poll::Ready(Ok(())) => self.batch.delivered(&self.shared),
                }
            }
            self.socket.poll_incoming(context).map(Turn::Step)
        });
        tokio::select! {
            biased;
            event = self.subscription.receiver().recv(), if has_room => Turn::Event(event),
            turn = socket => turn,
        }
    }

    /// Waits while a write is blocked, or the end of a replay has not been passed.
    pub(super) async fn encumbered_turn(&mut self) -> Result<Turn, Closed> {
        let shared = Arc::clone(&self.shared);
        let (reading, deadline) = (self.owed.is_none(), shared.clock.instant(self.deadline()));
        let writing = self.is_writing();
        let settling = !writing && self.subscription.receiver().is_empty();
        tokio::select! {
            biased;
            step = self.socket.step(reading) => return Ok(Turn::Step(step)),
            event = self.subscription.receiver().recv(), if !writing => return Ok(Turn::Event(event)),
            // One that takes its events is woken by one when the drain begins.
            () = shared.drain.begun(), if writing && self.leave_at.is_none() => {}
            () = replay::passed(&mut self.replayed), if settling => self.settle(),
            () = sleep_until(deadline) => self.take_tick(shared.clock.exactly_now())?,
        }
        Ok(Turn::Done)
    }

    /// Whether something is to be written, which has its time from now on.
    fn is_writing(&mut self) -> bool {
        let writing = self.socket.is_writing();
        if writing {
            self.writing_since
                .get_or_insert_with(|| self.shared.clock.exactly_now());
        }
        writing
    }

    /// Waits for something else while the socket is served as always.
    pub(super) async fn meanwhile<T>(
        &mut self,
        other: impl Future<Output = T>,
    ) -> Result<T, Closed> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                turned = self.turn() => turned?,
            }
        }
    }

    /// Waits until everything queued is with the kernel.
    pub(super) async fn flush(&mut self) -> Result<(), Closed> {
        while self.is_writing() {
            self.turn().await?;
        }
        Ok(())
    }

    /// What goes on whatever else is waited for. Cancel-safe.
    async fn turn(&mut self) -> Result<(), Closed> {
        self.is_writing();
        let shared = Arc::clone(&self.shared);
        let (reading, deadline) = (self.owed.is_none(), shared.clock.instant(self.deadline()));
        tokio::select! {
            biased;
            () = shared.drain.begun(), if self.leave_at.is_none() => {
                self.prepare_to_leave();
                Ok(())
            }
            step = self.socket.step(reading) => self.take_step(step),
            () = sleep_until(deadline) => self.take_tick(shared.clock.exactly_now()),
        }
    }
}
