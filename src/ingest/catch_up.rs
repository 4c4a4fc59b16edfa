//! Reading the log while notifications go on coming.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgNotification;
use tokio::time::sleep_until;

use super::barriers::Barriers;
use super::control_message::ControlMessage;
use super::held::{Held, Holdable};
use super::intake::{Intake, Next};
use super::lost::Lost;
use super::node::Node;
use crate::delivery::HealthReport;
use crate::protocol::{Channel, Channels, Cursor, Label, ReadinessReason, ResetReason, Snapshot};
use crate::store::{self, Chunk, Durability, Log, Notifications, Reading};

/// After a statement that took too long, before the next one.
const RETRY: Duration = Duration::from_secs(1);
/// A read that takes longer is reported as catching up.
const LONG: Duration = Duration::from_secs(1);

/// What came over the connection.
#[derive(Debug)]
pub(super) enum Received<'a> {
    /// With its payload.
    Event(Channel, Cow<'a, str>),
    Control(ControlMessage),
}

impl<'a> Received<'a> {
    /// `None` for what concerns others. A barrier counts as returned from here on, also while it is
    /// held.
    pub(super) fn new(
        notification: &'a PgNotification,
        channels: &Channels,
        barriers: &Barriers,
    ) -> Option<Self> {
        let payload = notification.payload();
        match channels.find(notification.channel()) {
            Some(channel) => Some(Self::Event(channel, payload.into())),
            None => barriers.receive(payload).map(Self::Control),
        }
    }

    /// With memory of its own. The notification's is a part of the connection's buffer, which it would keep whole.
    fn into_owned(self) -> Received<'static> {
        match self {
            Self::Event(channel, payload) => Received::Event(channel, payload.into_owned().into()),
            Self::Control(message) => Received::Control(message),
        }
    }

    pub(super) fn pass_to(self, intake: &mut Intake) -> Next {
        match self {
            Self::Event(channel, payload) => intake.notified(channel, &payload, Instant::now),
            Self::Control(message) => intake.controlled(message, Instant::now()),
        }
    }
}

impl Holdable for Received<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(_, payload) => payload.len(),
            Self::Control(message) => message.bytes(),
        }
    }
}

/// Why the clients are reset at the end of a read in which this was found.
pub(super) fn reset_reason(intake: &Intake, reading: &Reading) -> Option<ResetReason> {
    if intake.position().is_some() && !intake.is_of_history(&reading.cursor) {
        Some(ResetReason::History)
    } else {
        reading.reset_reason()
    }
}

/// The log and the connection that goes on notifying.
pub(super) struct CatchUp<'a> {
    pub(super) log: &'a Log,
    pub(super) barriers: &'a Arc<Barriers>,
    pub(super) notifications: &'a mut Notifications,
    pub(super) channels: &'a Channels,
    pub(super) intake: &'a mut Intake,
    /// What comes meanwhile. If the read fails, it is still there.
    pub(super) held: &'a mut Held<Received<'static>>,
    pub(super) health: &'a HealthReport,
    /// This process as one of many nodes.
    pub(super) node: Option<&'a mut Node>,
    /// Whether events were missed.
    pub(super) after_loss: bool,
}

impl CatchUp<'_> {
    /// Routes everything that is visible now and was not in `from`, then what was notified meanwhile. Returns what
    /// is left to do.
    pub(super) async fn run(&mut self, mut from: Snapshot) -> Result<Next, Lost> {
        loop {
            if self.intake.next_read().is_none() {
                self.hold_until(self.intake.rung_read()).await?;
            }
            let completed = self.intake.begin_read(Instant::now());
            let held_before = self.held.len();
            let reached = self.read_log(&from).await;
            self.health.end(ReadinessReason::CatchingUp);
            let reached = reached?;
            from = self.intake.read_to(reached, completed, Instant::now());
            match self.release(held_before) {
                Next::ReadLog if self.intake.position().is_some() => {}
                Next::ReadLog => return Ok(Next::Wait),
                next => return Ok(next),
            }
        }
    }

    /// Passes on what was held, and returns what is left to do. The read has brought the events of the first
    /// `held_before` notifications, which came before it began.
    fn release(&mut self, held_before: usize) -> Next {
        // All notifications that were dropped are in the log.
        let mut next = if self.held.take_overflowed() {
            self.intake.sources_doubt().begin();
            Next::ReadLog
        } else {
            Next::Wait
        };
        let mut number = 0;
        while let Some(received) = self.held.pop() {
            let was_read = number < held_before && matches!(received, Received::Event(..));
            match received.pass_to(self.intake) {
                // What was committed after it must not overtake it, and stays held.
                Next::ReadLog if !was_read => return Next::ReadLog,
                Next::Join => next = Next::Join,
                _ => {}
            }
            number += 1;
        }
        next
    }

    /// Holds what comes until this time.
    async fn hold_until(&mut self, time: Instant) -> Result<(), Lost> {
        loop {
            tokio::select! {
                biased;
                () = self.barriers.dead() => return Err(Lost::Dead),
                () = sleep_until(time.into()) => return Ok(()),
                notification = self.barriers.arrivals.count(self.notifications.next()) => {
                    self.hold(notification)?;
                }
            }
        }
    }

    fn hold(
        &mut self,
        notification: Result<Option<PgNotification>, sqlx::Error>,
    ) -> Result<(), Lost> {
        let notification = notification?.ok_or(Lost::Closed)?;
        if let Some(received) = Received::new(&notification, self.channels, self.barriers) {
            self.held.push(received.into_owned());
        }
        Ok(())
    }

    /// Routes from the log and returns how far that reaches. From a position that is too old, or of another history, the
    /// events that are there are routed first, and then the clients are reset. A statement that takes too long is tried
    /// again, from where it had come to, for as long as the connection lives.
    async fn read_log(&mut self, from: &Snapshot) -> Result<Cursor, Lost> {
        let mut chunks = self.log.read_all(from);
        let mut reached = None;
        let mut reset = None;
        let mut is_stuck = false;
        let (begun, mut events) = (Instant::now(), 0);
        loop {
            let chunk = tokio::select! {
                () = self.barriers.dead() => return Err(Lost::Dead),
                chunk = chunks.next() => chunk,
                notification = self.barriers.arrivals.count(self.notifications.next()) => {
                    self.hold(notification)?;
                    continue;
                }
            };
            let chunk = match chunk {
                Err(error) if store::may_pass(&error) => {
                    self.stuck(&error);
                    is_stuck = true;
                    self.hold_until(Instant::now() + RETRY).await?;
                    continue;
                }
                chunk => chunk?,
            };
            if std::mem::take(&mut is_stuck)
                && let Some(node) = &mut self.node
            {
                node.publishing.set_lives(true);
            }
            let Some(chunk) = chunk else {
                let reached: Reading = reached.ok_or(Lost::Closed)?;
                if let Some(reason) = reset {
                    self.restart(reason, &reached).await?;
                } else if self.intake.resets().reason_by(Instant::now()).is_some()
                    || self.intake.position().is_none()
                {
                    self.flush(&reached).await?;
                }
                return Ok(reached.cursor);
            };
            // It stays so from chunk to chunk.
            reset = reset_reason(self.intake, &chunk.reading);
            // Of what was missed, nothing is known but that it is in the log.
            if self.after_loss || chunk.has_asynchronous() {
                self.flush(&chunk.reading).await?;
            }
            self.route(&chunk).await?;
            events += chunk.rows.len();
            if begun.elapsed() >= LONG {
                let detail = format!("{events} events read from the log so far");
                self.health.begin(ReadinessReason::CatchingUp, &detail);
            }
            reached = Some(chunk.reading);
        }
    }

    /// Routes some events of the log. Where a kind or a source is not known, it is new since they were read.
    async fn route(&mut self, chunk: &Chunk) -> Result<(), Lost> {
        let unknown = self.intake.read(&chunk.rows);
        if !unknown.is_empty() {
            if self.log.read_kinds().await? {
                self.intake.user_type_changed();
            }
            self.intake.read_all(unknown);
        }
        Ok(())
    }

    /// The clients are reset, and are given the cursor of this reading when what it sees is on disk.
    async fn restart(&mut self, reason: ResetReason, reading: &Reading) -> Result<(), Lost> {
        self.flush(reading).await?;
        let cursor = Some(reading.cursor.clone());
        self.intake.restart(reason, cursor, Instant::now());
        Ok(())
    }

    async fn flush(&self, reading: &Reading) -> Result<(), Lost> {
        if reading.durability == Durability::Unflushed {
            self.log.flush().await?;
        }
        Ok(())
    }

    /// Events do not come: new clients wait, and `/readyz` says so until the log has been read. A leader that stays so is
    /// followed by another.
    fn stuck(&mut self, error: &sqlx::Error) {
        let reason = ReadinessReason::ListenerDisconnected;
        self.health.begin(reason, &store::summary(error));
        self.intake.away();
        if let Some(node) = &mut self.node {
            self.intake.router().flush_relay();
            node.away();
        }
        let fault = store::fault(error);
        let (cause, advice) = (fault.as_str(), fault.advice());
        tracing::warn!(event = "log_read_failed", cause, %error, retry_ms = RETRY.as_millis(), advice);
    }
}
