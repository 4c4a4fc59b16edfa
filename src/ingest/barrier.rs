//! Barriers: notifications to ourselves that show how far the feed is, how long it takes, and whether
//! it lives at all.
//!
//! Every interval one transaction notifies the control channel with a nonce and its own snapshot.
//! NOTIFY is delivered in the order of commits, so when the listener hears the barrier, everything
//! visible in that snapshot has been routed. A barrier that has committed and does not come back is
//! missed; three missed ones prove the listener dead, whatever TCP says. A barrier that cannot commit
//! says nothing about the listener: it has a metric and a reason on `/readyz` of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::sleep;
use uuid::Uuid;

use crate::config::Ingest;
use crate::delivery::CommitHealth;
use crate::metrics::Metrics;
use crate::protocol::Cursor;
use crate::store::Log;

/// The channel for what servers tell themselves and one another.
pub const CONTROL_CHANNEL: &str = "realtime_control";
/// Missed barriers after which the listener is dead.
const MISSED_MAX: usize = 3;
/// Barriers that are remembered while they are out; more mean that the listener is being rebuilt.
const OUTSTANDING_MAX: usize = 64;
/// A commit that takes longer is being waited for, and whether the database is there is asked.
const COMMIT_PATIENCE: Duration = Duration::from_millis(1_500);
/// A commit that takes longer than this waits for something: with `notify`, most likely for the lock
/// that all notifying commits share.
const COMMIT_SLOW: Duration = Duration::from_millis(250);

/// A barrier that has been sent.
#[derive(Debug)]
struct Outstanding {
    number: u64,
    sent: Instant,
    committed: Option<Instant>,
}

#[derive(Debug, Default)]
struct Book {
    last_number: u64,
    outstanding: VecDeque<Outstanding>,
}

/// What became of a barrier that was sent.
enum Commit {
    /// It has committed.
    Done,
    /// It has, at once, on a new connection, when the old one was silent: so may the listener's be.
    DoneElsewhere,
    /// The database refused it, or the connection broke.
    Failed(sqlx::Error),
    /// Nobody answers.
    Unreachable,
}

/// The barriers of one process: sent by a task, heard by the listener.
#[derive(Debug)]
pub struct Barriers {
    log: Log,
    metrics: Arc<Metrics>,
    interval: Duration,
    /// Tells this process's barriers from another's.
    node: Uuid,
    book: Mutex<Book>,
    /// Whether the database has no log, so that a barrier carries no snapshot.
    bare: AtomicBool,
    health: CommitHealth,
    wanted: Notify,
    dead: Notify,
    answering: Notify,
}

impl Barriers {
    /// No barrier yet.
    #[must_use]
    pub fn new(log: Log, interval: Duration, health: CommitHealth, metrics: Arc<Metrics>) -> Self {
        Self {
            log,
            metrics,
            interval,
            node: Uuid::new_v4(),
            book: Mutex::default(),
            bare: AtomicBool::new(false),
            health,
            wanted: Notify::new(),
            dead: Notify::new(),
            answering: Notify::new(),
        }
    }

    /// Sends barriers for ever, one after another.
    pub async fn run(&self) {
        loop {
            tokio::select! {
                () = sleep(self.interval) => {}
                () = self.wanted.notified() => {}
            }
            let number = self.begin();
            let sent = Instant::now();
            match self.commit(number).await {
                Commit::Done => self.committed(number, sent.elapsed()),
                Commit::DoneElsewhere => {
                    self.committed(number, sent.elapsed());
                    tracing::warn!(event = "connections_silent");
                    self.dead.notify_one();
                }
                Commit::Failed(error) => {
                    self.withdraw(number);
                    tracing::debug!(event = "barrier_failed", %error);
                }
                Commit::Unreachable => {
                    self.withdraw(number);
                    tracing::warn!(event = "database_silent");
                    self.log.renew();
                }
            }
            self.set_uncommitted(false);
            self.judge();
        }
    }

    /// Waits until the barrier has committed, for as long as the database takes new connections. Once
    /// it is sent again on a new one: a network that has swallowed packets leaves old connections that
    /// nothing ever comes from.
    async fn commit(&self, number: u64) -> Commit {
        let nonce = format!("{}/{number}", self.node);
        for elsewhere in [false, true] {
            let begun = Instant::now();
            let mut sending = std::pin::pin!(self.send(&nonce));
            loop {
                let patience = async {
                    sleep(COMMIT_PATIENCE).await;
                    self.log.is_reachable().await
                };
                let reachable = tokio::select! {
                    sent = &mut sending => return match sent {
                        Err(error) => Commit::Failed(error),
                        Ok(()) if elsewhere && begun.elapsed() < COMMIT_SLOW => {
                            Commit::DoneElsewhere
                        }
                        Ok(()) => Commit::Done,
                    },
                    reachable = patience => reachable,
                };
                if !reachable {
                    return Commit::Unreachable;
                }
                if !elsewhere {
                    self.log.renew();
                    break;
                }
                // It waits for a lock or a synchronous standby; another would wait behind it.
                self.set_uncommitted(true);
                self.judge();
            }
        }
        Commit::Unreachable
    }

    async fn send(&self, nonce: &str) -> Result<(), sqlx::Error> {
        if self.bare.load(Relaxed) {
            self.log.send_bare_barrier(nonce).await
        } else {
            self.log.send_barrier(nonce).await
        }
    }

    /// What the listener heard on the control channel; `None` when it is neither a server that wakes nor
    /// a barrier of ours that is out.
    pub fn heard(&self, payload: &str) -> Option<Heard> {
        let mut words = payload.split(' ');
        match words.next()? {
            "awake" => return Some(Heard::Awake),
            "barrier" => {}
            _ => return None,
        }
        let (node, number) = words.next()?.split_once('/')?;
        if node.parse() != Ok(self.node) {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        let mut book = self.book();
        let found = book
            .outstanding
            .iter()
            .find(|barrier| barrier.number == number)?;
        self.metrics.barrier_returned(found.sent.elapsed());
        book.outstanding.retain(|barrier| barrier.number > number);
        let Some(epoch) = words.next() else {
            return Some(Heard::Bare);
        };
        Some(Heard::Full {
            cursor: Cursor {
                epoch: epoch.parse().ok()?,
                snapshot: words.next()?.parse().ok()?,
                from_stream: false,
            },
            ingest: words.next()?.parse().ok()?,
            silent: words.next()? == "t",
            queue_usage: words.next()?.parse().ok()?,
        })
    }

    /// Forgets the barriers that are out: the connection that would have heard them is gone. The next
    /// one is sent at once.
    pub fn begin_anew(&self, bare: bool) {
        self.book().outstanding.clear();
        // What proved the one before dead proves nothing about this one.
        let _ = self.dead.notified().now_or_never();
        self.bare.store(bare, Relaxed);
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
        self.health.set_uncommitted(uncommitted);
        self.metrics.barrier_uncommitted(uncommitted);
    }

    fn begin(&self) -> u64 {
        let mut book = self.book();
        book.last_number += 1;
        let number = book.last_number;
        if book.outstanding.len() == OUTSTANDING_MAX {
            book.outstanding.pop_front();
        }
        book.outstanding.push_back(Outstanding {
            number,
            sent: Instant::now(),
            committed: None,
        });
        number
    }

    fn committed(&self, number: u64, after: Duration) {
        self.metrics.barrier_committed(after);
        if after > COMMIT_SLOW {
            tracing::warn!(
                event = "barrier_commit_slow",
                commit_ms = after.as_millis(),
                advice = "commits that notify wait for one another; ingest = adaptive spares the \
                          application that wait"
            );
        }
        self.answering.notify_waiters();
        if let Some(barrier) = self
            .book()
            .outstanding
            .iter_mut()
            .find(|b| b.number == number)
        {
            barrier.committed = Some(Instant::now());
        }
    }

    fn withdraw(&self, number: u64) {
        self.book()
            .outstanding
            .retain(|barrier| barrier.number != number);
    }

    /// Declares the listener dead when it should have heard too many barriers.
    fn judge(&self) {
        let mut book = self.book();
        let missed = book
            .outstanding
            .iter()
            .filter(|barrier| {
                barrier
                    .committed
                    .is_some_and(|at| at.elapsed() >= self.interval)
            })
            .count();
        if missed >= MISSED_MAX {
            book.outstanding.clear();
            drop(book);
            tracing::warn!(event = "listener_dead", missed_barriers = missed);
            self.dead.notify_one();
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came over the control channel.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A server is about to read the log all the time: events need not notify.
    Awake,
    /// A barrier, from a database without a log.
    Bare,
    /// A barrier, with what its transaction saw.
    Full {
        /// Its snapshot.
        cursor: Cursor,
        /// How events reach the server.
        ingest: Ingest,
        /// Whether events may not have notified.
        silent: bool,
        /// Share of PostgreSQL's notification queue in use, 0 to 1.
        queue_usage: f64,
    },
}
