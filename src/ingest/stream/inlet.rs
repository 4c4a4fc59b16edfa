//! What the stream's task hands to the listener.

use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::bounds::BATCHES_MAX;
use crate::protocol::StreamFault;
use crate::store::StreamedRow;

/// Rows that are visible, in the order of commits.
#[derive(Debug)]
pub(in crate::ingest) struct Batch {
    pub(super) rows: Vec<StreamedRow>,
    /// Everything up to this position of the write-ahead log is in this batch or was in those before.
    pub(super) end: u64,
}

/// One slot's stream, for the listener.
#[derive(Debug)]
pub(in crate::ingest) struct Session {
    until: u64,
    batches: mpsc::Receiver<Batch>,
    shared: Arc<Shared>,
}

/// The same, for the task. It ends when the listener lets go.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) shared: Arc<Shared>,
}

/// What the listener tells the task.
#[derive(Debug, Default)]
pub(in crate::ingest) struct Shared {
    /// Everything up to this position has been dealt with.
    routed: AtomicU64,
    /// Why the listener let go.
    let_go: OnceLock<StreamFault>,
}

impl Shared {
    pub(super) fn routed(&self) -> u64 {
        self.routed.load(Relaxed)
    }

    /// Why the listener let go; `None` where the stream is not at fault.
    pub(super) fn let_go(&self) -> Option<StreamFault> {
        self.let_go.get().copied()
    }
}

impl Session {
    /// A stream that is joined once a poll's snapshot has reached this transaction.
    pub(super) fn new(until: u64) -> (Self, Outlet) {
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let shared = Arc::<Shared>::default();
        let outlet = Outlet {
            batches: sender,
            shared: Arc::clone(&shared),
        };
        (
            Self {
                until,
                batches,
                shared,
            },
            outlet,
        )
    }
}

/// Where the task puts its sessions.
pub(in crate::ingest) type Sessions = mpsc::Sender<Session>;

/// What comes.
#[derive(Debug)]
pub(in crate::ingest) enum Inlet {
    /// A stream begins. It is joined once a poll's snapshot has reached this transaction.
    Began(u64),
    /// Rows, and the position that they reach to.
    Rows(Vec<StreamedRow>, u64),
    /// The stream has ended.
    Ended,
}

/// The listener's end.
#[derive(Debug)]
pub(in crate::ingest) struct Inlets {
    sessions: mpsc::Receiver<Session>,
    session: Option<Session>,
}

impl Inlets {
    pub(in crate::ingest) fn new() -> (Sessions, Self) {
        let (sender, sessions) = mpsc::channel(1);
        (
            sender,
            Self {
                sessions,
                session: None,
            },
        )
    }

    /// What comes next. Cancel-safe.
    pub(in crate::ingest) async fn next(&mut self) -> Inlet {
        if let Some(session) = &mut self.session {
            let Some(batch) = session.batches.recv().await else {
                self.session = None;
                return Inlet::Ended;
            };
            return Inlet::Rows(batch.rows, batch.end);
        }
        // The task has ended with the service.
        let Some(session) = self.sessions.recv().await else {
            return pending().await;
        };
        let until = session.until;
        self.session = Some(session);
        Inlet::Began(until)
    }

    /// Everything up to this position has been dealt with.
    pub(in crate::ingest) fn settled(&self, position: u64) {
        if let Some(session) = &self.session {
            session.shared.routed.store(position, Relaxed);
        }
    }

    /// Ends the stream that there is.
    pub(in crate::ingest) fn let_go(&mut self, why: Option<StreamFault>) {
        // One that has begun meanwhile is of before, too.
        let waiting = self.sessions.try_recv().ok();
        for session in self.session.take().into_iter().chain(waiting) {
            if let Some(why) = why {
                // Only the first counts.
                let _ = session.shared.let_go.set(why);
            }
        }
    }
}
