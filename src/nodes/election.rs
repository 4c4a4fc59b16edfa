//! Which of the nodes leads: a candidate tries for the lock, and the node that has it publishes in a run of its own.
//!
//! The node publishes before the database names its run: what it routes after the followers know of the run is then on the
//! bus, and what it has routed before is visible to the reads with which they begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::orders::Order;
use super::publishing::Publishing;
use super::status::Status;
use crate::metrics::Metrics;
use crate::protocol::{Epoch, Label};
use crate::store::{self, Candidate, LeaderSession, Log, Named};

/// Between two attempts of a candidate, and between two questions over the leader's session.
const INTERVAL: Duration = Duration::from_millis(400);
/// The ingest task takes longer than this to begin to publish: it is busy with something else.
const READY_MAX: Duration = Duration::from_secs(1);
/// A node that was sent away does not try for so long.
const STAND_BACK: Duration = Duration::from_secs(10);
/// After an attempt that the database has refused.
const RETRY: Duration = Duration::from_secs(1);
/// Between two log lines about attempts that have failed.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// Questions in a row at which a leader may be without its bus or its listener.
const UNFIT_MAX: u32 = 3;

/// Asks the leader to stand back. Cheap to clone: every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct StepDown(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    stand_back: Notify,
    done: Notify,
    resigned: AtomicBool,
}

impl StepDown {
    /// Has the node stand back for some seconds, if it leads.
    pub fn ask(&self) {
        self.0.stand_back.notify_one();
    }

    /// Has the node lead no more for as long as it runs, and waits a while until the lock is free.
    pub async fn resign(&self, publishing: &Publishing) {
        self.0.resigned.store(true, Relaxed);
        if publishing.run().is_some() {
            // Of a term that has ended before.
            let _ = self.0.done.notified().now_or_never();
            self.0.stand_back.notify_one();
            let _ = timeout(READY_MAX, self.0.done.notified()).await;
        }
    }

    /// Whether the node is to lead no more.
    pub(super) fn has_resigned(&self) -> bool {
        self.0.resigned.load(Relaxed)
    }
}

/// The election, as one node takes part in it.
#[derive(Debug)]
pub struct Election {
    /// The database.
    pub log: Log,
    /// The node.
    pub status: Status,
    /// What it publishes when it leads.
    pub publishing: Publishing,
    /// To the ingest task.
    pub orders: mpsc::Sender<Order>,
    /// Whether the node has a position and a bus.
    pub may_lead: watch::Receiver<bool>,
    /// Who may ask it to stand back.
    pub step_down: StepDown,
    /// Where the term is shown.
    pub metrics: Arc<Metrics>,
    /// When it was last said that an attempt has failed.
    pub said: Option<Instant>,
}

/// Why a node leads no longer. In the log it has the variant's name in snake case.
#[derive(Debug, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Lost {
    /// The session with the lock has ended.
    Session,
    /// Another node was elected.
    Deposed,
    /// The database of the session has another history or timeline than what the node publishes.
    History,
    /// It has no bus, or no position, any more, or cannot read the log.
    Unfit,
    /// It was asked to stand back.
    Asked,
}

impl Election {
    /// Takes part for ever.
    pub async fn run(mut self) {
        let mut candidate = Candidate::new(&self.log);
        let mut may_try = Instant::now();
        loop {
            if !*self.may_lead.borrow() {
                candidate.rest();
            }
            if self.may_lead.wait_for(|may| *may).await.is_err() {
                return;
            }
            sleep(INTERVAL.mul_f64(rand::random_range(0.75..1.25))).await;
            if Instant::now() < may_try || self.step_down.has_resigned() {
                candidate.rest();
                continue;
            }
            match candidate.try_take().await {
                Ok(None) => {}
                Ok(Some(session)) => {
                    if let Some(Lost::Asked) = self.lead(session).await {
                        may_try = Instant::now() + STAND_BACK;
                    }
                }
                Err(error) => {
                    self.failed(&error);
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// An attempt has failed. It is tried again, and said now and then.
    fn failed(&mut self, error: &sqlx::Error) {
        let is_due = |last: Instant| last.elapsed() >= SAID_EVERY;
        if !self.said.is_none_or(is_due) {
            return;
        }
        self.said = Some(Instant::now());
        let fault = store::fault(error);
        let (cause, advice) = if store::is_undefined_function(error) {
            let advice =
                "run `hushnet-realtime migrate up`; until then each node reads the log by itself";
            ("schema", advice)
        } else {
            (fault.as_str(), fault.advice())
        };
        tracing::warn!(event = "election_failed", cause, %error, advice);
    }

    /// Leads until the lock is lost or given up. Returns why; `None` if it has not begun.
    async fn lead(&mut self, mut session: LeaderSession) -> Option<Lost> {
        let run = rand::random_range(1..u64::MAX);
        if !self.begins_to_publish(run).await {
            self.publishing.end();
            session.release().await;
            return None;
        }
        let name = self.status.name().to_owned();
        let term = match session.lead(self.status.node(), &name, run).await {
            Ok(term) => term,
            Err(error) => {
                self.publishing.end();
                self.failed(&error);
                return None;
            }
        };
        self.status.set_leads(true);
        self.metrics.node_leading.set(true);
        self.metrics.node_term.set(term as f64);
        tracing::info!(event = "leader_elected", node = name, term, run);
        let lost = self.hold(&mut session, run).await;
        // Before the lock is free.
        self.publishing.end();
        self.status.set_leads(false);
        self.metrics.node_leading.set(false);
        session.release().await;
        self.step_down.0.done.notify_one();
        tracing::warn!(event = "leader_lost", term, cause = <&str>::from(&lost));
        Some(lost)
    }

    /// Has the ingest task publish what it routes.
    async fn begins_to_publish(&self, run: u64) -> bool {
        let (ready, answer) = oneshot::channel();
        let asked = timeout(READY_MAX, async {
            self.orders.send(Order { run, ready }).await.is_ok() && answer.await.is_ok()
        });
        asked.await.unwrap_or(false)
    }

    /// Whether this node publishes events of this history and timeline.
    fn publishes_of(&self, epoch: Epoch) -> bool {
        let run = self.publishing.run();
        run.is_some_and(|run| run.epoch() == epoch)
    }

    async fn hold(&self, session: &mut LeaderSession, run: u64) -> Lost {
        // What was asked of a term before.
        let asked = &self.step_down.0.stand_back;
        let _ = asked.notified().now_or_never();
        let mut unfit = 0;
        loop {
            if self.step_down.has_resigned() {
                return Lost::Asked;
            }
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = asked.notified() => return Lost::Asked,
            }
            match session.check().await {
                Ok(Named { run: named, .. }) if named != Some(run) => return Lost::Deposed,
                Ok(Named { epoch, .. }) if !self.publishes_of(epoch) => return Lost::History,
                Ok(Named { step_down, .. }) if step_down => return Lost::Asked,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(event = "leader_session_lost", %error);
                    return Lost::Session;
                }
            }
            unfit = if *self.may_lead.borrow() {
                0
            } else {
                unfit + 1
            };
            if unfit == UNFIT_MAX {
                return Lost::Unfit;
            }
        }
    }
}
