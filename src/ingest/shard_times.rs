//! Which of a follower's shards are silent, and which have had no user for a while. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

use crate::nodes::is_silence;
use crate::protocol::{SHARDS, Shard, ShardSet};

/// A shard that has had no user for so long is let go of.
const LINGER: Duration = Duration::from_secs(30);

/// When something last happened to each shard.
#[derive(Debug)]
pub(super) struct ShardTimes {
    /// When a message of it last came.
    came: [Instant; SHARDS],
    /// Since when it has had no user.
    unwanted: [Option<Instant>; SHARDS],
}

impl ShardTimes {
    /// Something has come of each just now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            came: [now; SHARDS],
            unwanted: [None; SHARDS],
        }
    }

    /// A message of the shard has come, or is expected from here on.
    pub(super) fn came(&mut self, shard: Shard, now: Instant) {
        self.came[shard.index()] = now;
    }

    /// Those of these shards that are silent. Each is expected anew from here on.
    pub(super) fn take_silent(&mut self, shards: ShardSet, now: Instant) -> ShardSet {
        let mut silent = ShardSet::NONE;
        for shard in shards.iter() {
            let came = &mut self.came[shard.index()];
            if is_silence(now.saturating_duration_since(*came)) {
                *came = now;
                silent = silent.with(shard);
            }
        }
        silent
    }

    /// Those of these shards that have had no user for a while.
    pub(super) fn take_unwanted(
        &mut self,
        shards: ShardSet,
        wanted: ShardSet,
        now: Instant,
    ) -> ShardSet {
        let mut unwanted = ShardSet::NONE;
        for shard in shards.iter() {
            let since = &mut self.unwanted[shard.index()];
            if wanted.contains(shard) {
                *since = None;
            } else if now.saturating_duration_since(*since.get_or_insert(now)) >= LINGER {
                *since = None;
                unwanted = unwanted.with(shard);
            }
        }
        unwanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn shards(numbers: &[u8]) -> ShardSet {
        let shards = numbers.iter().map(|&number| Shard::new(number).unwrap());
        shards.fold(ShardSet::NONE, ShardSet::with)
    }

    #[test]
    fn a_shard_is_silent_when_only_the_others_messages_come() {
        let start = Instant::now();
        let mut times = ShardTimes::new(start);
        times.came(Shard::new(1).unwrap(), start + 2 * SECOND);
        let now = start + 2 * SECOND;
        assert_eq!(times.take_silent(shards(&[1, 2]), now), shards(&[2]));
        // It is given the same time again.
        assert_eq!(
            times.take_silent(shards(&[1, 2]), now + SECOND),
            ShardSet::NONE
        );
        assert_eq!(
            times.take_silent(shards(&[2]), now + 2 * SECOND),
            shards(&[2])
        );
    }

    #[test]
    fn a_shard_is_let_go_of_when_it_has_had_no_user_for_a_while_without_a_break() {
        let start = Instant::now();
        let mut times = ShardTimes::new(start);
        let (taken, wanted) = (shards(&[1, 2]), shards(&[1]));
        assert_eq!(times.take_unwanted(taken, wanted, start), ShardSet::NONE);
        let now = start + LINGER;
        assert_eq!(times.take_unwanted(taken, wanted, now), shards(&[2]));
        // A user has come meanwhile.
        assert_eq!(times.take_unwanted(taken, wanted, now), ShardSet::NONE);
        assert_eq!(
            times.take_unwanted(taken, taken, now + SECOND),
            ShardSet::NONE
        );
        assert_eq!(
            times.take_unwanted(taken, wanted, now + LINGER),
            ShardSet::NONE
        );
    }
}
