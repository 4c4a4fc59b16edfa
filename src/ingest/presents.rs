//! The database's present as a follower has looked at it: a barrier that covers one was sent after the look began. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use crate::protocol::Snapshot;

/// Looks that no barrier has covered yet. Of more the oldest are forgotten.
const PRESENTS_MAX: usize = 16;

/// The looks that no barrier has covered yet, oldest first, and when each began.
#[derive(Debug, Default)]
pub(super) struct Presents(VecDeque<(Instant, Snapshot)>);

impl Presents {
    /// A look that began at this time found this snapshot.
    pub(super) fn push(&mut self, began: Instant, present: Snapshot) {
        if self.0.len() == PRESENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((began, present));
    }

    /// When the last look began that this barrier covers: the barrier was sent later.
    pub(super) fn take_covered(&mut self, barrier: &Snapshot) -> Option<Instant> {
        let is_covered = |(_, present): &(Instant, Snapshot)| barrier.covers(present);
        let covered = self.0.partition_point(is_covered);
        self.0.drain(..covered).next_back().map(|(began, _)| began)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_barrier_was_sent_after_the_last_look_that_it_covers() {
        let (start, mut presents) = (Instant::now(), Presents::default());
        let at = |second| start + Duration::from_secs(second);
        let snapshot = |xmax: u64| format!("{xmax}:{xmax}:").parse().unwrap();
        for second in 0..20 {
            presents.push(at(second), snapshot(10 + second));
        }
        // The first four have been forgotten.
        assert_eq!(presents.take_covered(&snapshot(13)), None);
        assert_eq!(presents.take_covered(&snapshot(16)), Some(at(6)));
        assert_eq!(presents.take_covered(&snapshot(16)), None);
        assert_eq!(presents.take_covered(&snapshot(99)), Some(at(19)));
    }
}
