//! The listener: PostgreSQL's notifications, from LISTEN to the router, without a gap.
//!
//! Owns the connection that notifications come over and never waits for anything but that socket: while
//! the log is read, notifications are taken and held, up to a bound. A connection that fails in any way
//! is thrown away and made anew, with jittered backoff, also at start. Then everything that is not
//! visible at the position is read from the log and routed before live events go on.

use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::barriers::Barriers;
use super::catch_up::{CatchUp, Received};
use super::injector::Injected;
use super::intake::{Intake, Next};
use super::joining::{Joining, ingest_after_change};
use super::lost::Lost;
use crate::config::Ingest;
use crate::delivery::{HealthReport, Router};
use crate::metrics::Metrics;
use crate::protocol::{Channel, Label, ReadinessReason, ResetReason, Snapshot};
use crate::store::{CONTROL_CHANNEL, Log, Notifications};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The task that feeds the router.
#[derive(Debug)]
pub struct Listener {
    options: PgConnectOptions,
    log: Log,
    barriers: Arc<Barriers>,
    intake: Intake,
    health: HealthReport,
    metrics: Arc<Metrics>,
    /// The way of ingest that is still to be written to the database.
    ingest_wanted: Option<Ingest>,
    /// Whether a connection has ever been live: clients were promised nothing before.
    has_listened: bool,
    connected: bool,
    injected: Injected,
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
        Self {
            options,
            log,
            barriers,
            health: router.health_report(),
            intake: Intake::new(router, Arc::clone(&metrics), Instant::now()),
            metrics,
            ingest_wanted,
            has_listened: false,
            connected: false,
            injected: Injected::default(),
        }
    }

    /// With notifications that do not come from the database, for benchmarks.
    #[must_use]
    pub fn with_injected(self, injected: Injected) -> Self {
        Self { injected, ..self }
    }

    /// Whether the wake lock is wanted.
    #[must_use]
    pub fn wake_lock(&self) -> watch::Receiver<bool> {
        self.intake.wake_lock()
    }

    /// Listens for ever. To stop it, drop the future.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let channels = Channel::all().map(Channel::as_str).chain([CONTROL_CHANNEL]);
            let error = match Notifications::listen(&self.options, channels).await {
                Ok(mut notifications) => {
                    let Err(error) = self.serve(&mut notifications, &mut backoff).await;
                    error
                }
                Err(error) => error.into(),
            };
            let reason = ReadinessReason::ListenerDisconnected;
            self.health.begin(reason, &error.summary());
            self.intake.away();
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

    /// Joins what was routed to what comes, and routes it until the connection is lost.
    async fn serve(
        &mut self,
        notifications: &mut Notifications,
        backoff: &mut Duration,
    ) -> Result<Infallible, Lost> {
        self.join(notifications).await?;
        self.metrics.listener_connected.set(true);
        (self.connected, self.has_listened) = (true, true);
        *backoff = BACKOFF_FIRST;
        tracing::info!(event = "listener_connected");
        loop {
            let next_read = self.intake.next_read();
            let next = tokio::select! {
                biased;
                () = self.barriers.dead() => return Err(Lost::Dead),
                notification = notifications.next() => {
                    let notification = notification?.ok_or(Lost::Closed)?;
                    Received::new(notification, &self.barriers)
                        .map_or(Next::Wait, |received| received.pass_to(&mut self.intake))
                }
                () = sleep_until(next_read.unwrap_or_else(Instant::now).into()),
                    if next_read.is_some() => Next::ReadLog,
                payloads = self.injected.next() => self.inject(&payloads),
            };
            if next == Next::ReadLog
                && let Some(position) = self.intake.position()
            {
                let from = position.snapshot.clone();
                self.catch_up(notifications, from).await?;
            }
        }
    }

    /// Routes what was committed since the position, or begins with the present where that cannot be
    /// known.
    async fn join(&mut self, notifications: &mut Notifications) -> Result<(), Lost> {
        let state = self.log.state().await?;
        let mut ingest = Ingest::Notify;
        if let Some(state) = &state {
            ingest = state.ingest;
            if let Some(wanted) = self.ingest_wanted {
                self.log.set_ingest(wanted).await?;
                self.ingest_wanted = None;
                ingest = ingest_after_change(ingest, wanted);
            }
            self.intake.reconnected(ingest, Instant::now());
        }
        if ingest == Ingest::Notify && !self.has_listened {
            tracing::info!(
                event = "notifications_are_trusted",
                advice = "any role that may connect to this database can notify an event that was never \
                          written; ingest = adaptive or tail takes events from the log alone (SECURITY.md)"
            );
        }
        // Only barriers count that have seen what was set.
        self.barriers.restart(state.is_none());
        let present = state.map(|state| state.cursor);
        match Joining::decide(present, self.intake.durable_position(), self.has_listened) {
            Joining::WithoutLog { reset } => {
                if reset {
                    self.intake
                        .restart(ResetReason::NoLog, None, Instant::now());
                }
                self.intake.live_without_log();
            }
            Joining::Begin(cursor) => self.intake.begin(cursor, Instant::now()),
            Joining::CatchUp(from) => self.catch_up(notifications, from).await?,
            Joining::Restart(reason, cursor) => {
                self.intake.restart(reason, Some(cursor), Instant::now());
            }
        }
        Ok(())
    }

    async fn catch_up(
        &mut self,
        notifications: &mut Notifications,
        from: Snapshot,
    ) -> Result<(), Lost> {
        let mut catch_up = CatchUp {
            log: &self.log,
            barriers: &self.barriers,
            notifications,
            intake: &mut self.intake,
            health: &self.health,
        };
        catch_up.run(from).await
    }

    fn inject(&mut self, payloads: &str) -> Next {
        let mut next = Next::Wait;
        for payload in payloads.lines() {
            let asked = self
                .intake
                .notified(Channel::Messages, payload, Instant::now);
            if asked == Next::ReadLog {
                next = Next::ReadLog;
            }
        }
        next
    }
}
