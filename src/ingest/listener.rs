//! The listener: PostgreSQL's notifications, from LISTEN to the router, without a gap.
//!
//! Owns the connection that notifications come over and never waits for anything but that socket: while
//! the log is read, notifications are taken and held, up to a bound. A connection that fails in any way
//! is thrown away and made anew, with jittered backoff, also at start. Then everything that is not
//! visible at the position is read from the log and routed before live events go on.

use std::convert::Infallible;
use std::future::ready;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hushnet_replication::Endpoint;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::barriers::Barriers;
use super::catch_up::{CatchUp, Received};
use super::following;
use super::held::{HELD_BYTES_MAX, Held};
use super::ingest_choice::IngestChoice;
use super::injector::Injected;
use super::intake::{Intake, Next};
use super::joining::{Joining, ingest_after_change};
use super::lost::Lost;
use super::node::{self, Node, Turn};
use super::statement::{self, Statement};
use super::stream::{Inlet, Inlets, StreamTask};
use super::streaming::{Row, Streaming};
use crate::config::Ingest;
use crate::delivery::{HealthReport, Router};
use crate::metrics::Metrics;
use crate::nodes::Run;
use crate::protocol::{Channel, DatabaseFault, Label, ReadinessReason, Snapshot, StreamFault};
use crate::store::{self, CONTROL_CHANNEL, Log, LogState, Notifications, StreamedRow};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Turns of the loop in a row that need not send what is to be published: batches of events that come together are one.
const TURNS_UNSENT_MAX: u32 = 64;
/// Barriers that may find a log in which something is missing. `migrate up` is then still at work.
const INCOMPLETE_MAX: u32 = 30;

/// The task that feeds the router.
#[derive(Debug)]
pub struct Listener {
    log: Log,
    barriers: Arc<Barriers>,
    intake: Intake,
    health: HealthReport,
    metrics: Arc<Metrics>,
    choice: IngestChoice,
    /// How often in a row a log was incomplete.
    incomplete: u32,
    /// Whether a connection has ever been live: clients were promised nothing before.
    has_listened: bool,
    connected: bool,
    flush: Statement<u64>,
    injected: Injected,
    stream: Inlets,
    streaming: Streaming,
    /// This process as one of many nodes; `None` without a bus.
    node: Option<Node>,
}

impl Listener {
    /// A listener that is not connected yet, and the task that streams for it.
    #[must_use]
    pub fn new(
        log: Log,
        barriers: Arc<Barriers>,
        router: Router,
        metrics: Arc<Metrics>,
        ingest_wanted: Option<Ingest>,
        endpoint: Option<Endpoint>,
    ) -> (Self, StreamTask) {
        let health = router.health_report();
        let intake = Intake::new(router, Arc::clone(&metrics), Instant::now());
        let (sessions, stream) = Inlets::new();
        let ends = (intake.wants().stream(), sessions);
        let task = StreamTask::new(log.clone(), ends, health.clone(), Arc::clone(&metrics));
        let listener = Self {
            log,
            barriers,
            health,
            intake,
            metrics,
            choice: IngestChoice {
                wanted: ingest_wanted,
                endpoint: endpoint.clone(),
            },
            incomplete: 0,
            has_listened: false,
            connected: false,
            flush: Statement::default(),
            injected: Injected::default(),
            stream,
            streaming: Streaming::default(),
            node: None,
        };
        (listener, task.with(endpoint))
    }

    /// With notifications that do not come from the database, for benchmarks.
    #[must_use]
    pub fn with_injected(self, injected: Injected) -> Self {
        Self { injected, ..self }
    }

    /// As one of many nodes.
    #[must_use]
    pub fn with_node(self, node: Option<Node>) -> Self {
        Self { node, ..self }
    }

    /// Whether the wake lock is wanted.
    #[must_use]
    pub fn wake_lock(&self) -> watch::Receiver<bool> {
        self.intake.wants().wake_lock()
    }

    /// Listens for ever. To stop it, drop the future.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            self.let_go_of_look();
            let metrics = Arc::clone(&self.metrics);
            let channels = metrics.channels().names().chain([CONTROL_CHANNEL]);
            let error = match Notifications::listen(&self.log, channels).await {
                Ok(mut notifications) => {
                    let Err(error) = self.serve(&mut notifications, &mut backoff).await;
                    error
                }
                Err(error) => error.into(),
            };
            if let Lost::Follow(run) = error {
                self.follow_bus(run).await;
                continue;
            }
            self.log.distrust_address();
            self.report(Some(&error));
            self.intake.away();
            if let Some(node) = &mut self.node {
                node.away();
            }
            self.let_go(None);
            if mem::take(&mut self.connected) {
                self.metrics.listener_connected.set(false);
                self.metrics.listener_reconnects.increment();
            }
            let pause = backoff.mul_f64(rand::random_range(0.5..1.0));
            let (cause, advice) = (error.fault().as_str(), error.fault().advice());
            let retry_ms = pause.as_millis();
            tracing::warn!(event = "listener_disconnected", cause, %error, retry_ms, advice);
            // A database that answers again need not be waited for.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.barriers.answering() => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Reports why there is no connection, or that the address can be used.
    fn report(&self, lost: Option<&Lost>) {
        let fault = lost.map(Lost::fault);
        let detail = lost.map(Lost::summary).unwrap_or_default();
        for (reason, of) in [
            (ReadinessReason::Pooler, DatabaseFault::Pooler),
            (ReadinessReason::Recovery, DatabaseFault::ReadOnly),
            (ReadinessReason::Privilege, DatabaseFault::Privilege),
        ] {
            if fault == Some(of) {
                self.health.begin(reason, &detail);
            } else {
                self.health.end(reason);
            }
        }
        if lost.is_some() {
            self.health
                .begin(ReadinessReason::ListenerDisconnected, &detail);
        }
    }

    /// Joins what was routed to what comes, and routes it until the connection is lost.
    async fn serve(
        &mut self,
        notifications: &mut Notifications,
        backoff: &mut Duration,
    ) -> Result<Infallible, Lost> {
        self.report(None);
        self.flush = Statement::default();
        let next = self.join(notifications).await?;
        self.metrics.listener_connected.set(true);
        (self.connected, self.has_listened) = (true, true);
        *backoff = BACKOFF_FIRST;
        tracing::info!(event = "listener_connected");
        self.intake.router().serve_all();
        self.follow(notifications, next).await?;
        let mut unsent = 0;
        loop {
            let next_read = self.intake.next_read();
            let epoch = self.intake.durable_position().map(|known| known.epoch);
            if let Some(newest) = self.intake.awaits_disk() {
                self.flush.begin(|| statement::flush(&self.log, newest));
            }
            let next = tokio::select! {
                biased;
                () = self.barriers.dead() => return Err(Lost::Dead),
                flushed = self.flush.ended() => {
                    self.intake.on_disk(flushed?);
                    Next::Wait
                }
                notification = self.barriers.arrivals.count(notifications.next()) => {
                    let notification = notification?.ok_or(Lost::Closed)?;
                    Received::new(&notification, self.metrics.channels(), &self.barriers)
                        .map_or(Next::Wait, |received| received.pass_to(&mut self.intake))
                }
                () = sleep_until(next_read.unwrap_or_else(Instant::now).into()),
                    if next_read.is_some() => Next::ReadLog,
                inlet = self.stream.next() => self.take(inlet),
                () = self.barriers.stream_silent() => {
                    self.let_go(Some(StreamFault::Silent));
                    Next::Wait
                }
                payloads = self.injected.next() => self.inject(&payloads),
                turn = node::next(&mut self.node, epoch) => self.turn(turn)?,
                // Nothing else is ready.
                () = ready(()), if unsent > 0 && self.node.is_some() => {
                    unsent = TURNS_UNSENT_MAX;
                    Next::Wait
                }
            };
            self.follow(notifications, next).await?;
            unsent += 1;
            if unsent > TURNS_UNSENT_MAX {
                self.intake.router().flush_relay();
                unsent = 0;
            }
            if self.intake.sources_doubt().take_due(Instant::now) {
                self.read_sources().await?;
            }
        }
    }

    /// Does what concerns this process as a node.
    fn turn(&mut self, turn: Turn) -> Result<Next, Lost> {
        match (turn, &self.node) {
            (Turn::Follow(run), _) => return Err(Lost::Follow(run)),
            (Turn::Reconnect, _) => {
                self.log.renew();
                return Err(Lost::NewerTimeline);
            }
            (Turn::Publish(order), Some(node)) => node.publish(order, &mut self.intake),
            _ => {}
        }
        Ok(Next::Wait)
    }

    /// Takes events from the bus until there is a reason to read the log again.
    async fn follow_bus(&mut self, run: Run) {
        let Some(node) = &mut self.node else {
            return;
        };
        self.stream.let_go(None);
        self.streaming.end(&mut self.intake, Instant::now());
        self.barriers.pause();
        self.metrics.listener_connected.set(false);
        self.connected = false;
        following::follow(&self.log, &mut self.intake, node, &self.health, run).await;
        // The next one says when the database answers.
        self.barriers.restart(false);
    }

    /// Does what is left to do after a notification, and what is left after that.
    async fn follow(
        &mut self,
        notifications: &mut Notifications,
        mut next: Next,
    ) -> Result<(), Lost> {
        loop {
            let position = self.intake.position();
            next = match (next, position.map(|position| position.snapshot.clone())) {
                (Next::Wait, _) | (Next::ReadLog, None) => match self.pump() {
                    Next::Wait => break,
                    next => next,
                },
                (Next::ReadLog, Some(from)) => self.catch_up(notifications, from, false).await?,
                (Next::Join, _) => self.join(notifications).await?,
            };
        }
        self.barriers.stream(self.intake.is_streaming());
        if let Some(position) = self.streaming.settled() {
            self.stream.settled(position);
        }
        Ok(())
    }

    /// Takes what the stream of the write-ahead log brings.
    fn take(&mut self, inlet: Inlet) -> Next {
        match inlet {
            Inlet::Began(until) => self.streaming.begin(until),
            Inlet::Ended => self.streaming.end(&mut self.intake, Instant::now()),
            Inlet::Rows(rows, end) => {
                let rows = rows.into_iter().filter_map(|row| match row {
                    StreamedRow::Barrier(xid, text) => {
                        Some(Row::Barrier(xid, self.barriers.receive_row(&text)?))
                    }
                    row => Some(Row::Log(row)),
                });
                if !self.streaming.push(&self.intake, rows, end) {
                    self.let_go(Some(StreamFault::Overflow));
                }
            }
        }
        Next::Wait
    }

    /// Gives up the stream that there is: the log is polled.
    fn let_go(&mut self, why: Option<StreamFault>) {
        self.stream.let_go(why);
        self.streaming.end(&mut self.intake, Instant::now());
        self.barriers.stream(false);
    }

    fn pump(&mut self) -> Next {
        self.streaming.pump(&mut self.intake, Instant::now)
    }

    /// Before the database is waited for without the node.
    fn let_go_of_look(&mut self) {
        if let Some(node) = &mut self.node {
            node.watch.let_go();
        }
    }

    async fn read_sources(&mut self) -> Result<(), Lost> {
        self.let_go_of_look();
        if self.log.read_kinds().await? {
            self.intake.user_type_changed();
        }
        Ok(())
    }

    /// Routes what was committed since the position, or begins with the present where that cannot be
    /// known. Returns what is left to do.
    async fn join(&mut self, notifications: &mut Notifications) -> Result<Next, Lost> {
        self.let_go(None);
        self.let_go_of_look();
        let state = match self.state().await {
            // The schema is there and the service's role has no right on it yet: events come without it meanwhile.
            Err(Lost::Database(error))
                if (store::is_undefined(&error) || store::is_forbidden(&error))
                    && self.may_wait() =>
            {
                tracing::warn!(event = "log_incomplete", %error);
                return Ok(Next::Wait);
            }
            // Its history ends with the last migration, and every client would be reset.
            Ok(Some(state)) if state.is_before && self.may_wait() => return Ok(Next::Wait),
            state => state?,
        };
        let mut ingest = Ingest::Notify;
        self.read_sources().await?;
        if let Some(state) = &state {
            ingest = state.ingest;
            if self.intake.position().is_none() {
                ingest = ingest_after_change(ingest, self.choice.write(&self.log).await?);
            }
            self.intake.reconnected(ingest, Instant::now());
        }
        self.incomplete = 0;
        if ingest == Ingest::Notify && !self.has_listened {
            tracing::info!(
                event = "notifications_are_trusted",
                advice = "any role that may connect to this database can notify an event that was never \
                          written; ingest = wal, adaptive or tail takes events from the log alone (SECURITY.md)"
            );
        }
        // Only barriers count that have seen what was set.
        self.barriers.restart(state.is_none());
        let present = state.map(|state| state.cursor);
        if let (Some(node), Some(present)) = (&mut self.node, &present) {
            node.joined(present.epoch);
        }
        match Joining::decide(
            present,
            self.intake.durable_position(),
            self.intake.without_log(),
            self.has_listened,
        ) {
            Joining::WithoutLog { reset: true } => self.intake.leave_log(Instant::now()),
            Joining::WithoutLog { reset: false } => self.intake.live_without_log(),
            Joining::Begin(cursor) => self.intake.begin(cursor, Instant::now()),
            Joining::CatchUp(from) => {
                if self.intake.position().is_none() {
                    tracing::info!(event = "log_found");
                }
                return self.catch_up(notifications, from, true).await;
            }
            Joining::Restart(reason, cursor) => {
                self.intake.restart(reason, Some(cursor), Instant::now());
            }
        }
        Ok(Next::Wait)
    }

    /// What the log says of itself. Where the database has forgotten what a barrier has proven to be on its disk, the
    /// disk was put back to an earlier state: a new history begins.
    async fn state(&self) -> Result<Option<LogState>, Lost> {
        let state = self.log.state().await?;
        let (Some(found), Some(position)) = (&state, self.intake.durable_position()) else {
            return Ok(state);
        };
        let is_ahead = position.epoch == found.cursor.epoch
            && position.snapshot.xmax() > found.cursor.snapshot.xmax();
        if !is_ahead {
            return Ok(state);
        }
        self.log.renew_history(Some(found.cursor.epoch)).await?;
        tracing::warn!(
            event = "history_renewed",
            position = %position,
            database = %found.cursor,
            advice = "the database is older than what this server has delivered: an earlier state of its disk was put \
                      back; every client fetches its state anew"
        );
        Ok(self.log.state().await?)
    }

    /// Whether a log that is incomplete may wait for the next barrier: events come without it.
    fn may_wait(&mut self) -> bool {
        self.incomplete += 1;
        let is_served = self.intake.without_log().is_some();
        is_served && self.incomplete <= INCOMPLETE_MAX
    }

    async fn catch_up(
        &mut self,
        notifications: &mut Notifications,
        from: Snapshot,
        after_loss: bool,
    ) -> Result<Next, Lost> {
        // What waits for the disk comes with the read. Nobody would look at the flush meanwhile, and its time would pass.
        self.flush = Statement::default();
        self.let_go_of_look();
        let mut held = Held::new(HELD_BYTES_MAX);
        let mut catch_up = CatchUp {
            log: &self.log,
            barriers: &self.barriers,
            notifications,
            channels: self.metrics.channels(),
            intake: &mut self.intake,
            held: &mut held,
            health: &self.health,
            node: self.node.as_mut(),
            after_loss,
        };
        let caught_up = catch_up.run(from).await;
        self.streaming.polled(&mut self.intake);
        match &caught_up {
            Err(Lost::Database(error))
                if store::is_undefined(error) || store::is_forbidden(error) => {}
            _ => return caught_up,
        }
        if self.log.exists().await? {
            return caught_up;
        }
        self.intake.leave_log(Instant::now());
        let mut next = Next::Wait;
        while let Some(received) = held.pop() {
            if received.pass_to(&mut self.intake) == Next::Join {
                next = Next::Join;
            }
        }
        Ok(next)
    }

    fn inject(&mut self, payloads: &str) -> Next {
        let mut next = Next::Wait;
        for payload in payloads.lines() {
            let asked = self
                .intake
                .notified(Channel::MESSAGES, payload, Instant::now);
            if asked == Next::ReadLog {
                next = Next::ReadLog;
            }
        }
        next
    }
}
