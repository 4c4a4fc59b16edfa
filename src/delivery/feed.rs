//! The feed: whether events are coming, from which cursor on, and whether barriers commit.
//!
//! The router publishes it, and everything that depends on the listener's state reads it from here: a
//! new connection, a replay, `/readyz`. Readers so know neither the listener nor the barriers.

use std::sync::Arc;

use tokio::sync::watch;

use crate::protocol::Cursor;

/// The state of the stream of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Feed {
    pub(super) live: bool,
    pub(super) cursor: Option<Arc<Cursor>>,
    uncommitted: bool,
}

impl Feed {
    /// Whether the listener is connected and has caught up. While it has not, no client can be given
    /// its position.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The newest cursor that clients are given: everything visible in its snapshot has been routed.
    /// `None` in a database without a log. Kept while the feed is away.
    #[must_use]
    pub fn cursor(&self) -> Option<&Arc<Cursor>> {
        self.cursor.as_ref()
    }

    /// Whether a barrier is waiting to commit although the database answers.
    #[must_use]
    pub fn is_uncommitted(&self) -> bool {
        self.uncommitted
    }
}

/// Sets whether barriers commit, for the task that sends them.
#[derive(Debug, Clone)]
pub struct CommitHealth(pub(super) watch::Sender<Feed>);

impl CommitHealth {
    /// Sets [`Feed::is_uncommitted`].
    pub fn set_uncommitted(&self, uncommitted: bool) {
        self.0.send_if_modified(|feed| {
            feed.uncommitted = uncommitted;
            // `/readyz` looks when it is asked. Connections wait for cursors and need not wake.
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_health_is_seen_and_wakes_no_reader() {
        let (sender, mut feed) = watch::channel(Feed::default());
        let health = CommitHealth(sender);
        health.set_uncommitted(true);
        assert!(feed.borrow().is_uncommitted() && !feed.borrow().is_live());
        assert!(!feed.has_changed().unwrap());
        health.set_uncommitted(false);
        assert!(!feed.borrow_and_update().is_uncommitted());
    }
}
