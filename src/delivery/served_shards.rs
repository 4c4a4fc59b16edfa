//! From when on the replay buffer is complete for the shards that a node takes from the bus.

use super::replay_buffer::ReplayBuffer;
use crate::protocol::{Cursor, ShardSet, Snapshot};

/// Shards that come and go while the node runs.
#[derive(Debug)]
pub struct ServedShards {
    replay_buffer: ReplayBuffer,
    /// Shards that have been taken at this snapshot, which no barrier has seen yet. No shard is in two of these.
    taken: Vec<(ShardSet, Snapshot)>,
}

impl ServedShards {
    pub(super) fn new(replay_buffer: ReplayBuffer) -> Self {
        Self {
            replay_buffer,
            taken: Vec::new(),
        }
    }

    /// Of these shards no more is routed.
    pub fn lose(&mut self, shards: ShardSet) {
        self.replay_buffer.lose_shards(shards);
        for (taken, _) in &mut self.taken {
            *taken = taken.minus(shards);
        }
        self.taken.retain(|(taken, _)| !taken.is_empty());
    }

    /// Of these shards everything comes that this snapshot does not see. The replay buffer is complete for them from the
    /// first barrier on that covers it.
    pub fn take(&mut self, shards: ShardSet, snapshot: Snapshot) {
        let incomplete = self.replay_buffer.incomplete_shards();
        let known = self.taken.iter().flat_map(|(taken, _)| taken.iter());
        let known: ShardSet = known.collect();
        let new = shards.iter().filter(|shard| incomplete.contains(*shard));
        let new = new.collect::<ShardSet>().minus(known);
        if !new.is_empty() {
            self.taken.push((new, snapshot));
        }
    }

    /// This barrier has been completed.
    pub(super) fn complete(&mut self, barrier: &Cursor) {
        let replay_buffer = &self.replay_buffer;
        self.taken.retain(|(shards, snapshot)| {
            let is_seen = barrier.snapshot.covers(snapshot);
            if is_seen {
                replay_buffer.complete_shards(*shards, &barrier.snapshot);
            }
            !is_seen
        });
    }
}
