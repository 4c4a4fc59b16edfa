//! Which shards have connected users: what a node needs of the bus.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::sync::Notify;

use crate::protocol::{SHARDS, Shard, ShardSet};

/// The connections of each shard's users.
#[derive(Debug)]
pub struct Interest {
    connections: [AtomicU32; SHARDS],
    grown: Notify,
}

impl Default for Interest {
    fn default() -> Self {
        Self {
            connections: [const { AtomicU32::new(0) }; SHARDS],
            grown: Notify::new(),
        }
    }
}

impl Interest {
    /// A connection comes. It is counted before it looks whether its shard is served, and a node that lets go of a shard
    /// says so before it counts: one of the two sees the other.
    pub(super) fn enter(&self, shard: Shard) {
        if self.connections[shard.index()].fetch_add(1, SeqCst) == 0 {
            self.grown.notify_one();
        }
    }

    pub(super) fn leave(&self, shard: Shard) {
        self.connections[shard.index()].fetch_sub(1, SeqCst);
    }

    /// The shards that have at least one connection.
    #[must_use]
    pub fn wanted(&self) -> ShardSet {
        let is_wanted = |shard: &Shard| self.connections[shard.index()].load(SeqCst) > 0;
        Shard::all().filter(is_wanted).collect()
    }

    /// Ready when a shard has got its first connection since the last call. Cancel-safe.
    pub async fn grown(&self) {
        self.grown.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_shard_is_wanted_from_its_first_connection_to_its_last() {
        let interest = Interest::default();
        let shard = Shard::new(9).unwrap();
        let only = ShardSet::NONE.with(shard);
        assert!(interest.wanted().is_empty());
        interest.enter(shard);
        assert!(interest.grown().now_or_never().is_some());
        interest.enter(shard);
        assert!(
            interest.grown().now_or_never().is_none(),
            "it was wanted before"
        );
        interest.leave(shard);
        assert_eq!(interest.wanted(), only);
        interest.leave(shard);
        assert!(interest.wanted().is_empty());
        interest.enter(shard);
        assert!(interest.grown().now_or_never().is_some());
    }
}
