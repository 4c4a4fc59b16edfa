//! From where on the replay buffer is complete for each shard: a node that takes events from the bus has those of some
//! shards only.

use std::sync::Arc;

use crate::protocol::{SHARDS, Shard, ShardSet, Snapshot};

/// The shards that the buffer has every signal of, and since when.
#[derive(Debug)]
pub(super) struct Shards {
    incomplete: ShardSet,
    /// Beside the buffer's own beginning; `None` where only that counts.
    from: [Option<Arc<Snapshot>>; SHARDS],
}

impl Default for Shards {
    fn default() -> Self {
        Self {
            incomplete: ShardSet::NONE,
            from: [const { None }; SHARDS],
        }
    }
}

impl Shards {
    /// The same shards in a history without snapshots.
    pub(super) fn of_new_history(&self) -> Self {
        Self {
            incomplete: self.incomplete,
            ..Self::default()
        }
    }

    pub(super) fn incomplete(&self) -> ShardSet {
        self.incomplete
    }

    pub(super) fn lose(&mut self, shards: ShardSet) {
        for shard in shards.iter() {
            self.incomplete = self.incomplete.with(shard);
            self.from[shard.index()] = None;
        }
    }

    pub(super) fn complete(&mut self, shards: ShardSet, barrier: &Snapshot) {
        let from = Arc::new(barrier.clone());
        for shard in shards.iter() {
            self.incomplete = self.incomplete.without(shard);
            self.from[shard.index()] = Some(Arc::clone(&from));
        }
    }

    /// Whether every signal of the shard is here that this snapshot does not see, as far as the shard is concerned.
    pub(super) fn serve(&self, shard: Shard, snapshot: &Snapshot) -> bool {
        let from = self.from[shard.index()].as_ref();
        !self.incomplete.contains(shard) && from.is_none_or(|from| snapshot.covers(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn a_shard_is_served_from_the_barrier_on_that_has_seen_that_it_was_taken() {
        let (mut shards, shard) = (Shards::default(), Shard::new(3).unwrap());
        let set = ShardSet::NONE.with(shard);
        assert!(shards.serve(shard, &snapshot("1:1:")));
        shards.lose(set);
        assert!(!shards.serve(shard, &snapshot("9:9:")));
        assert!(shards.serve(Shard::new(4).unwrap(), &snapshot("1:1:")));
        shards.complete(set, &snapshot("5:5:"));
        assert!(!shards.serve(shard, &snapshot("4:4:")));
        assert!(shards.serve(shard, &snapshot("5:5:")));
        let mut shards = shards.of_new_history();
        assert!(shards.serve(shard, &snapshot("1:1:")));
        shards.lose(set);
        assert!(!shards.of_new_history().serve(shard, &snapshot("1:1:")));
    }
}
