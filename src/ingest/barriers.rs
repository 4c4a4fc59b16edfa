//! Barriers: notifications to ourselves that show how far the feed is, how long it takes, and whether
//! it lives at all.
//!
//! Every interval one transaction notifies the control channel with a nonce and its own snapshot.
//! NOTIFY is delivered in the order of commits, so when the barrier's notification comes back,
//! everything visible in that snapshot has been routed. Three committed barriers that do not come back
//! prove the listener dead, whatever TCP says. A barrier that cannot commit says nothing about the
//! listener. Nor does one that stands behind a backlog: while events come that were committed before it, the
//! connection lives, and `/readyz` says that the server is catching up. Else, whether a barrier fails or does not
//! return, nothing is proven, and `/readyz` says so, and why.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::arrivals::{Arrivals, Counts, Flow};
use super::control_message::{BarrierState, ControlMessage, ControlPayload, Nonce};
use super::failures::Failures;
use super::outstanding::{OutstandingBarriers, Took};
use crate::delivery::HealthReport;
use crate::metrics::Metrics;
use crate::protocol::{DatabaseFault, Label, ReadinessReason};
use crate::store::{self, Log};

/// If no barrier has returned for so long, or for three intervals if that is longer, nothing is proven.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A barrier that took longer to return from its commit on was behind a backlog.
const LATE: Duration = Duration::from_secs(2);
/// Share of PostgreSQL's notification queue from which on it has more for a listener than it is just sending. A queue
/// that every listener has read still holds a few of its 1,048,576 pages.
const QUEUE_USED: f64 = 16.0 / 1_048_576.0;

/// A commit that takes longer makes the task ask whether the database is reachable.
const COMMIT_PATIENCE: Duration = Duration::from_millis(1_500);
/// A commit that takes longer is logged. With `notify` it most likely waits for the lock that all
/// notifying commits share.
const COMMIT_SLOW: Duration = Duration::from_millis(250);

/// A barrier that waits for longer, and not for a synchronous standby, is given up. PostgreSQL itself ends one that
/// waits for a lock before.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two times that all connections are given up because the address leads elsewhere than to a primary.
const ADDRESS_RENEWAL: Duration = Duration::from_secs(10);

/// What became of a barrier that was sent.
enum Commit {
    /// It has committed.
    Done,
    /// It has committed, quickly, on a new connection after the old one was silent: the listener's
    /// connection may be silent too.
    DoneElsewhere,
    /// The database refused it, or the connection broke.
    Failed(sqlx::Error),
    /// The database takes no new connection, or none answers.
    Unreachable(sqlx::Error),
}

/// The barriers of one process: sent by a task, completed by the listener.
#[derive(Debug)]
pub struct Barriers {
    log: Log,
    metrics: Arc<Metrics>,
    interval: Duration,
    outstanding: Mutex<OutstandingBarriers>,
    /// Counted by the listener.
    pub(super) arrivals: Arrivals,
    /// The counts when it was last asked whether barriers are missed.
    judged: Mutex<Counts>,
    /// Whether the database had no log when it was last looked at.
    bare: AtomicBool,
    /// Whether the log's rows are streamed: barriers are rows as well, and return as such.
    streaming: AtomicBool,
    /// Whether barriers are sent: a node that follows passes the leader's.
    paused: AtomicBool,
    health: HealthReport,
    wanted: Notify,
    dead: Notify,
    answering: Notify,
    stream_silent: Notify,
}

impl Barriers {
    /// No barrier yet.
    #[must_use]
    pub fn new(log: Log, interval: Duration, health: HealthReport, metrics: Arc<Metrics>) -> Self {
        health.expect_barriers(SILENCE_MAX.max(interval * 3));
        Self {
            log,
            metrics,
            interval,
            outstanding: Mutex::new(OutstandingBarriers::new(interval)),
            arrivals: Arrivals::default(),
            judged: Mutex::default(),
            bare: AtomicBool::new(false),
            streaming: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            health,
            wanted: Notify::new(),
            dead: Notify::new(),
            answering: Notify::new(),
            stream_silent: Notify::new(),
        }
    }

    /// Sends barriers for ever, one after another.
    pub async fn run(&self) {
        let mut failures = Failures::default();
        let mut renewed = None;
        loop {
            tokio::select! {
                () = sleep(self.interval) => {}
                () = self.wanted.notified() => {}
            }
            if self.paused.load(Relaxed) {
                self.outstanding().clear();
                self.set_uncommitted(false);
                continue;
            }
            let sent = Instant::now();
            let nonce = Nonce::random();
            let is_row = self.streaming.load(Relaxed) && !self.bare.load(Relaxed);
            self.outstanding().send(nonce, is_row, sent);
            match self.commit(nonce, is_row, sent).await {
                Commit::Done => self.committed(nonce, sent.elapsed(), &mut failures),
                Commit::DoneElsewhere => {
                    self.committed(nonce, sent.elapsed(), &mut failures);
                    tracing::warn!(event = "connections_silent");
                    self.dead.notify_one();
                }
                Commit::Failed(error) => {
                    let fault = self.failed(nonce, &mut failures, &error);
                    if matches!(fault, DatabaseFault::ReadOnly | DatabaseFault::Pooler) {
                        self.leave_address(&mut renewed);
                    }
                }
                Commit::Unreachable(error) => {
                    self.failed(nonce, &mut failures, &error);
                    self.log.renew();
                }
            }
            self.check_missed().await;
        }
    }

    /// Waits until the barrier has committed, for as long as the database takes new connections. After
    /// [`COMMIT_PATIENCE`] it is sent once more, on a new connection, unless it waits for a lock: a network that has
    /// swallowed packets leaves old connections open and silent.
    async fn commit(&self, nonce: Nonce, is_row: bool, sent: Instant) -> Commit {
        let nonce = nonce.to_string();
        let mut waits = false;
        for elsewhere in [false, true] {
            let begun = Instant::now();
            let mut sending = std::pin::pin!(self.send(&nonce, is_row));
            loop {
                let patience = async {
                    sleep(COMMIT_PATIENCE).await;
                    self.log.reach().await
                };
                let reached = tokio::select! {
                    sent = &mut sending => return match sent {
                        Err(error) => Commit::Failed(error),
                        Ok(()) if elsewhere && begun.elapsed() < COMMIT_SLOW => {
                            Commit::DoneElsewhere
                        }
                        Ok(()) => Commit::Done,
                    },
                    reached = patience => reached,
                };
                let awaits_lock = match reached {
                    Ok(awaits_lock) => awaits_lock,
                    Err(error) => return unreached(error),
                };
                if !elsewhere && !awaits_lock {
                    self.log.renew();
                    // Before the time of the next commit begins. Why it failed, the next barrier says.
                    let _ = self.log.ready().await;
                    break;
                }
                // It waits for a lock or a synchronous standby, and another would wait behind it.
                if !std::mem::replace(&mut waits, true) {
                    let advice = ReadinessReason::BarrierUncommitted.remedy();
                    tracing::warn!(event = "barrier_uncommitted", advice);
                }
                self.set_uncommitted(true);
                self.check_missed().await;
                if sent.elapsed() >= COMMIT_DEADLINE
                    && !self.log.awaits_standby().await.unwrap_or(false)
                {
                    return Commit::Unreachable(store::deadline_passed());
                }
            }
        }
        Commit::Unreachable(store::deadline_passed())
    }

    /// Sends the barrier in the way that the database has it. When the log has gone, the barrier says so to the
    /// listener, in the order of commits.
    async fn send(&self, nonce: &str, is_row: bool) -> Result<(), sqlx::Error> {
        if !self.bare.load(Relaxed) {
            let sent = if is_row {
                self.log.send_stream_barrier(nonce).await
            } else {
                self.log.send_barrier(nonce).await
            };
            match sent {
                Err(error) if store::is_undefined(&error) || store::is_forbidden(&error) => {
                    // A part of the log may be missing, which is a fault and no log that has gone.
                    if self.log.exists().await? {
                        return Err(error);
                    }
                    self.bare.store(true, Relaxed);
                }
                sent => return sent,
            }
        }
        self.log.send_bare_barrier(nonce).await
    }

    /// Completes the barrier in this notification of the control channel. `None` when the notification
    /// is neither a server's announcement nor an outstanding barrier of this process.
    pub fn receive(&self, payload: &str) -> Option<ControlMessage> {
        let (nonce, state) = match ControlPayload::parse(payload)? {
            ControlPayload::Awake => return Some(ControlMessage::Awake),
            ControlPayload::Changed => return Some(ControlMessage::Changed),
            ControlPayload::Sources => return Some(ControlMessage::Sources),
            ControlPayload::Barrier(nonce, state) => (nonce, state),
        };
        let now = Instant::now();
        if self.outstanding().row_notified(nonce) {
            return None;
        }
        let took = self.outstanding().complete(nonce, now)?;
        self.returned(took, now);
        ControlMessage::of_barrier(state, now.checked_sub(took.since_sent))
    }

    /// Completes the barrier in this row of the log. `None` when it is no outstanding barrier of this process.
    pub(super) fn receive_row(&self, payload: &str) -> Option<BarrierState> {
        let ControlPayload::Barrier(nonce, state) = ControlPayload::parse(payload)? else {
            return None;
        };
        let now = Instant::now();
        let took = self.outstanding().complete_row(nonce, now)?;
        self.returned(took, now);
        match ControlMessage::of_barrier(state, now.checked_sub(took.since_sent))? {
            ControlMessage::Barrier(state) => Some(state),
            _ => None,
        }
    }

    fn returned(&self, took: Took, now: Instant) {
        self.metrics.barrier_round_trip.record(took.since_sent);
        self.metrics.barrier_age.restart(now);
        if took.since_committed < LATE {
            self.health.barrier_returned(now);
        } else {
            self.health.barrier_returned_late(now);
        }
    }

    /// Whether the log's rows are streamed from here on.
    pub(super) fn stream(&self, streaming: bool) {
        if self.streaming.swap(streaming, Relaxed) == streaming {
            return;
        }
        if !streaming {
            self.outstanding().end_rows();
        }
        self.wanted.notify_one();
    }

    /// Ready when barriers have committed and were notified, and their rows do not come.
    pub(super) async fn stream_silent(&self) {
        self.stream_silent.notified().await;
    }

    /// Sends no barriers until [`Barriers::restart`].
    pub(super) fn pause(&self) {
        self.paused.store(true, Relaxed);
        self.outstanding().clear();
    }

    /// Forgets the outstanding barriers: the connection that they would have returned on is gone. The
    /// next one is sent at once.
    pub fn restart(&self, bare: bool) {
        // First: a barrier that is sent in the way of before is forgotten.
        self.bare.store(bare, Relaxed);
        self.paused.store(false, Relaxed);
        self.streaming.store(false, Relaxed);
        self.outstanding().clear();
        // The proof concerned the connection before this one.
        let _ = self.dead.notified().now_or_never();
        let _ = self.stream_silent.notified().now_or_never();
        self.wanted.notify_one();
    }

    /// Ready when the listener has been proven dead.
    pub async fn dead(&self) {
        self.dead.notified().await;
    }

    /// Ready when a barrier commits: the database answers.
    pub async fn answering(&self) {
        self.answering.notified().await;
    }

    fn set_uncommitted(&self, uncommitted: bool) {
        if uncommitted {
            self.health.begin(ReadinessReason::BarrierUncommitted, "");
        } else {
            self.health.end(ReadinessReason::BarrierUncommitted);
        }
        self.metrics.barrier_uncommitted.set(uncommitted);
    }

    /// The barrier will not come. That says nothing about the listener, which is left alone. Returns why.
    fn failed(&self, nonce: Nonce, failures: &mut Failures, error: &sqlx::Error) -> DatabaseFault {
        let (fault, error) = (store::fault(error), store::summary(error));
        self.outstanding().withdraw(nonce);
        self.metrics.barriers_failed.increment(fault);
        self.health.begin(ReadinessReason::BarrierFailed, &error);
        // A barrier that PostgreSQL has ended while it waited is followed by one that waits as well.
        if fault != DatabaseFault::Timeout {
            self.set_uncommitted(false);
        }
        if let Some(failures) = failures.add(fault, Instant::now()) {
            let (cause, advice) = (fault.as_str(), fault.advice());
            tracing::warn!(event = "barrier_failed", cause, error, failures, advice);
        }
        fault
    }

    /// The primary has become a standby, or a pooler has come before it, and the same address may lead to another server
    /// by now: the address is probed again, and every connection is made anew.
    fn leave_address(&self, renewed: &mut Option<Instant>) {
        if renewed.is_none_or(|renewed| renewed.elapsed() >= ADDRESS_RENEWAL) {
            *renewed = Some(Instant::now());
            self.log.renew();
            self.dead.notify_one();
        }
    }

    fn committed(&self, nonce: Nonce, after: Duration, failures: &mut Failures) {
        self.metrics.barrier_commit.record(after);
        self.health.end(ReadinessReason::BarrierFailed);
        self.set_uncommitted(false);
        if let Some(failures) = failures.end() {
            tracing::info!(event = "barriers_commit_again", failures);
        }
        if after > COMMIT_SLOW {
            tracing::warn!(
                event = "barrier_commit_slow",
                commit_ms = after.as_millis(),
                advice = "commits that notify wait for one another; ingest = adaptive spares the \
                          application that wait"
            );
        }
        self.answering.notify_waiters();
        self.outstanding().commit(nonce, Instant::now());
    }

    /// Declares the listener dead when it has missed too many barriers.
    async fn check_missed(&self) {
        if self.outstanding().take_silent_stream(Instant::now()) {
            self.streaming.store(false, Relaxed);
            self.stream_silent.notify_one();
        }
        let counts = self.arrivals.counts();
        let before = std::mem::replace(&mut *lock(&self.judged), counts);
        if !self.outstanding().is_any_missed(Instant::now()) {
            return;
        }
        let is_behind = match counts.flow_since(before) {
            Flow::Silent => false,
            Flow::Unbroken => true,
            Flow::Interrupted => {
                let usage = self.log.notification_queue_usage().await;
                usage.is_ok_and(|usage| usage >= QUEUE_USED)
            }
        };
        if is_behind {
            self.outstanding().stand_behind();
            self.health.behind(Instant::now());
        }
        let missed = self.outstanding().take_missed(Instant::now());
        if let Some(missed) = missed {
            tracing::warn!(event = "listener_dead", missed_barriers = missed);
            self.dead.notify_one();
        }
    }

    fn outstanding(&self) -> MutexGuard<'_, OutstandingBarriers> {
        lock(&self.outstanding)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new connection was refused, or not answered. A database that answers is no outage: the connections that there are
/// stay.
fn unreached(error: sqlx::Error) -> Commit {
    match error {
        sqlx::Error::Database(_) if store::fault(&error) == DatabaseFault::Connections => {
            Commit::Failed(error)
        }
        error => Commit::Unreachable(error),
    }
}
