//! PostgreSQL's notifications, from LISTEN to the router, without a gap.
//!
//! Owns one database connection and runs no query on it but LISTEN. It never waits for anything but
//! that socket: while the log is read, notifications go on being taken and are held, up to a bound.
//! Whatever happens to the connection, it is thrown away and made anew, with jittered backoff, at start
//! too; then everything that is not visible at the position is read from the log and routed before
//! live events go on. The process never ends for it.

use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::schedule::Pace;
use crate::config::Ingest;
use crate::delivery::Router;
use crate::ingest::injector::Injected;
use crate::ingest::{Barriers, CONTROL_CHANNEL, Heard};
use crate::metrics::Metrics;
use crate::protocol::{Channel, Cursor, Label, Notification, ResetReason, Snapshot};
use crate::store;
use crate::store::Log;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// One attempt to connect; sqlx itself retries a refused connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two chunks of the log.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Share of PostgreSQL's notification queue at which events had better be silent.
const QUEUE_USAGE_HIGH: f64 = 0.5;
/// Notifications that are held while the log is read. Beyond it they are dropped and the log is read
/// once more.
const HELD_MAX: usize = 100_000;

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("barriers no longer came back")]
    Dead,
    #[error("the log was not read within {} s", READ_TIMEOUT.as_secs())]
    ReadTimeout,
}

/// The task that feeds the router.
#[derive(Debug)]
pub struct Listener {
    options: PgConnectOptions,
    log: Log,
    barriers: Arc<Barriers>,
    router: Router,
    metrics: Arc<Metrics>,
    pace: Pace,
    /// Whether the doorbell's lock is wanted.
    doorbell: watch::Sender<bool>,
    /// The way of ingest that is still to be written to the database.
    ingest_wanted: Option<Ingest>,
    /// Whether notifications have ever been heard: what came before was nobody's here.
    heard_before: bool,
    connected: bool,
    /// A barrier that was heard, and that the next read of the log shows to have been passed.
    to_pass: Option<Cursor>,
    injected: Injected,
}

/// What came over the connection.
enum Told {
    Event(Channel, PgNotification),
    Control(Heard),
}

/// What is left to do after a notification.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Done,
    /// Something is in the log that was not notified.
    ReadLog,
}

impl Listener {
    /// A listener that is not connected yet.
    #[must_use]
    pub fn new(
        options: PgConnectOptions,
        log: Log,
        barriers: Arc<Barriers>,
        router: Router,
        metrics: Arc<Metrics>,
        ingest_wanted: Option<Ingest>,
    ) -> Self {
        let pace = Pace::new(Ingest::Notify, Instant::now());
        let doorbell = watch::Sender::new(false);
        Self {
            pace,
            doorbell,
            ingest_wanted,
            options,
            log,
            barriers,
            router,
            metrics,
            heard_before: false,
            connected: false,
            to_pass: None,
            injected: Injected::default(),
        }
    }

    /// With notifications that do not come from the database, for benchmarks.
    #[must_use]
    pub fn with_injected(self, injected: Injected) -> Self {
        Self { injected, ..self }
    }

    /// Whether the doorbell's lock is wanted.
    #[must_use]
    pub fn doorbell(&self) -> watch::Receiver<bool> {
        self.doorbell.subscribe()
    }

    /// Listens for ever. To stop it, drop the future.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match self.connect().await {
                Ok(mut connection) => {
                    let Err(error) = self.serve(&mut connection, &mut backoff).await;
                    error
                }
                Err(error) => error.into(),
            };
            self.router.away();
            if mem::take(&mut self.connected) {
                self.metrics.listener_connected(false);
                self.metrics.listener_lost();
            }
            let pause = backoff.mul_f64(rand::random_range(0.5..1.0));
            tracing::warn!(event = "listener_disconnected", %error, retry_ms = pause.as_millis());
            // A database that answers again need not be waited for.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.barriers.answering() => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn connect(&self) -> Result<PgListener, sqlx::Error> {
        // A pool of its own, so that the listener never waits for a query's connection.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(self.options.clone());
        let listening = async {
            let mut connection = PgListener::connect_with(&pool).await?;
            // A lost connection is to be seen, not to be replaced behind our back.
            connection.eager_reconnect(false);
            let channels = Channel::all().map(Channel::as_str);
            connection
                .listen_all(channels.chain([CONTROL_CHANNEL]))
                .await?;
            Ok(connection)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, listening)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Joins what was routed to what comes, and routes it until the connection is lost.
    async fn serve(
        &mut self,
        connection: &mut PgListener,
        backoff: &mut Duration,
    ) -> Result<Infallible, Lost> {
        self.join(connection).await?;
        self.metrics.listener_connected(true);
        (self.connected, self.heard_before) = (true, true);
        *backoff = BACKOFF_FIRST;
        tracing::info!(event = "listener_connected");
        let barriers = Arc::clone(&self.barriers);
        loop {
            let next_read = self.pace.next_read();
            let must_read = tokio::select! {
                biased;
                () = barriers.dead() => return Err(Lost::Dead),
                notification = connection.try_recv() => {
                    let told = self.hear(notification?.ok_or(Lost::Closed)?);
                    told.is_some_and(|told| self.take(told) == Taken::ReadLog)
                }
                () = sleep_until(next_read.unwrap_or_else(Instant::now).into()),
                    if next_read.is_some() => true,
                payloads = self.injected.next() => self.take_injected(&payloads),
            };
            if must_read && let Some(position) = self.router.position() {
                let from = position.snapshot.clone();
                self.catch_up(connection, from).await?;
            }
        }
    }

    /// LISTEN has been answered: from here on nothing committed escapes us. Routes what was committed
    /// since the position, or begins with the present where that cannot be known.
    async fn join(&mut self, connection: &mut PgListener) -> Result<(), Lost> {
        let state = tokio::time::timeout(CONNECT_TIMEOUT, self.log.state())
            .await
            .map_err(|_| Lost::ReadTimeout)??;
        let Some(state) = state else {
            self.barriers.begin_anew(true);
            if self.heard_before {
                self.router
                    .restart(ResetReason::NoLog, None, Instant::now());
            }
            self.router.live_without_log();
            return Ok(());
        };
        let mut ingest = state.ingest;
        if let Some(wanted) = self.ingest_wanted {
            self.log.set_ingest(wanted).await?;
            self.ingest_wanted = None;
            // The other way round, events may go on being silent: a barrier will tell when none is.
            if ingest == Ingest::Notify {
                ingest = wanted;
            }
        }
        // Only barriers count that have seen what was set.
        self.barriers.begin_anew(false);
        self.pace.rejoin(ingest, Instant::now());
        self.to_pass = None;
        match self.router.durable_position() {
            Some(position) if position.epoch != state.cursor.epoch => {
                self.router
                    .restart(ResetReason::History, Some(state.cursor), Instant::now());
            }
            Some(position) => {
                let from = position.snapshot.clone();
                self.catch_up(connection, from).await?;
            }
            None if self.heard_before => {
                self.router
                    .restart(ResetReason::NoLog, Some(state.cursor), Instant::now());
            }
            None => self.router.advance(state.cursor, Instant::now()),
        }
        Ok(())
    }

    /// Routes everything that is visible now and was not in `from`, then what was notified meanwhile.
    async fn catch_up(
        &mut self,
        connection: &mut PgListener,
        mut from: Snapshot,
    ) -> Result<(), Lost> {
        let mut held = Vec::new();
        loop {
            // Heard before the read, and so visible to it.
            let to_pass = self.to_pass.take();
            let reached = self.read_log(connection, &from, &mut held).await?;
            let overflown = held.len() > HELD_MAX;
            from = reached.snapshot.clone();
            self.router.advance(reached, Instant::now());
            if let Some(barrier) = to_pass {
                self.router.complete_barrier(barrier, Instant::now());
            }
            self.keep_pace(|pace, routed, now| {
                pace.read(&from, routed, now);
                pace.routed(routed, false, now);
            });
            // After an overflow the notifications have a gap, but all of them are in the log.
            held.truncate(HELD_MAX);
            let mut told = mem::take(&mut held).into_iter();
            let must_read = told.any(|told| self.take(told) == Taken::ReadLog);
            // What was committed after it must not overtake it.
            held.extend(told);
            if !must_read && !overflown {
                return Ok(());
            }
        }
    }

    /// Routes from the log and returns how far that reaches.
    async fn read_log(
        &mut self,
        connection: &mut PgListener,
        from: &Snapshot,
        held: &mut Vec<Told>,
    ) -> Result<Cursor, Lost> {
        let barriers = Arc::clone(&self.barriers);
        let mut chunks = self.log.read_all(from);
        let mut reached = None;
        loop {
            let chunk = tokio::select! {
                () = barriers.dead() => return Err(Lost::Dead),
                chunk = tokio::time::timeout(READ_TIMEOUT, chunks.recv()) => {
                    chunk.map_err(|_| Lost::ReadTimeout)?
                }
                notification = connection.try_recv() => {
                    let told = self.hear(notification?.ok_or(Lost::Closed)?);
                    // One more than the bound says that there were more.
                    if held.len() <= HELD_MAX {
                        held.extend(told);
                    }
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            let chunk = chunk?;
            if reached.is_none() && !(chunk.reading.retained && chunk.reading.known) {
                let reason = if chunk.reading.known {
                    ResetReason::Retention
                } else {
                    ResetReason::History
                };
                self.router
                    .restart(reason, Some(chunk.reading.cursor.clone()), Instant::now());
                return Ok(chunk.reading.cursor);
            }
            self.metrics.events_caught_up(chunk.rows.len());
            for (id, payload) in &chunk.rows {
                if let Some(told) = store::told(*id, payload) {
                    self.router.route(told);
                }
            }
            reached = Some(chunk.reading.cursor);
        }
        reached.ok_or(Lost::Closed)
    }

    /// A barrier counts as heard also while what it tells is held.
    fn hear(&self, notification: PgNotification) -> Option<Told> {
        match Channel::from_name(notification.channel()) {
            Some(channel) => Some(Told::Event(channel, notification)),
            None => self
                .barriers
                .heard(notification.payload())
                .map(Told::Control),
        }
    }

    fn take(&mut self, told: Told) -> Taken {
        let (channel, notification) = match told {
            Told::Event(channel, notification) => (channel, notification),
            Told::Control(heard) => return self.take_control(heard),
        };
        self.take_payload(channel, notification.payload())
    }

    /// Whether one of them asks for a read of the log.
    fn take_injected(&mut self, payloads: &str) -> bool {
        let mut must_read = false;
        for payload in payloads.lines() {
            must_read |= self.take_payload(Channel::Messages, payload) == Taken::ReadLog;
        }
        must_read
    }

    fn take_payload(&mut self, channel: Channel, payload: &str) -> Taken {
        match Notification::parse(payload) {
            Ok(told) if told.by_reference => {
                let missing = told.id.is_some_and(|id| !self.router.has_seen(id));
                return if missing { Taken::ReadLog } else { Taken::Done };
            }
            Ok(told) if self.pace.trusts_notifications() => self.router.route(told),
            Ok(told) => return self.ring(told.id),
            Err(error) => {
                self.metrics.notification_malformed(channel);
                tracing::warn!(
                    event = "notification_malformed",
                    channel = channel.as_str(),
                    %error
                );
            }
        }
        Taken::Done
    }

    /// Some events are silent: this one only tells that there is something to read. Routed by itself it
    /// could overtake a silent one that was committed before it was written.
    fn ring(&mut self, id: Option<i64>) -> Taken {
        if id.is_some_and(|id| self.router.has_seen(id)) {
            return Taken::Done;
        }
        if self.pace.hasten(Instant::now()) {
            Taken::Done
        } else {
            Taken::ReadLog
        }
    }

    fn take_control(&mut self, heard: Heard) -> Taken {
        let (cursor, ingest, silent, queue_usage) = match heard {
            Heard::Full {
                cursor,
                ingest,
                silent,
                queue_usage,
            } => (cursor, ingest, silent, queue_usage),
            Heard::Bare => return Taken::Done,
            Heard::Awake => {
                self.pace.other_awake(Instant::now());
                return Taken::Done;
            }
        };
        let mut moves = false;
        self.keep_pace(|pace, routed, now| {
            pace.routed(routed, queue_usage >= QUEUE_USAGE_HIGH, now);
            moves = pace.barrier(ingest, silent, now);
        });
        if moves {
            self.router.complete_barrier(cursor, Instant::now());
            return Taken::Done;
        }
        self.to_pass = Some(cursor);
        // Where the log is being read anyway, it need not be read for the barrier.
        if self.pace.next_read().is_some() {
            Taken::Done
        } else {
            Taken::ReadLog
        }
    }

    fn keep_pace(&mut self, tell: impl FnOnce(&mut Pace, u64, Instant)) {
        tell(&mut self.pace, self.router.take_routed(), Instant::now());
        let awake = self.pace.is_awake();
        self.doorbell
            .send_if_modified(|wanted| mem::replace(wanted, awake) != awake);
    }
}
