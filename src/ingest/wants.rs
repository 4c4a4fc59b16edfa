//! What the schedule wants of other tasks: the wake lock, and a stream of the write-ahead log.

use tokio::sync::watch;

use super::schedule::Schedule;

/// The tasks watch what is wanted.
#[derive(Debug)]
pub(super) struct Wants {
    wake_lock: watch::Sender<bool>,
    stream: watch::Sender<bool>,
}

impl Wants {
    /// Nothing yet.
    pub(super) fn nothing() -> Self {
        Self {
            wake_lock: watch::Sender::new(false),
            stream: watch::Sender::new(false),
        }
    }

    /// Whether the wake lock is wanted.
    pub(super) fn wake_lock(&self) -> watch::Receiver<bool> {
        self.wake_lock.subscribe()
    }

    /// Whether a stream of the write-ahead log is wanted.
    pub(super) fn stream(&self) -> watch::Receiver<bool> {
        self.stream.subscribe()
    }

    /// Tells the tasks what has changed.
    pub(super) fn announce(&self, schedule: &Schedule) {
        for (wanted, wants) in [
            (&self.wake_lock, schedule.wants_wake_lock()),
            (&self.stream, schedule.wants_stream()),
        ] {
            wanted.send_if_modified(|wanted| std::mem::replace(wanted, wants) != wants);
        }
    }
}
