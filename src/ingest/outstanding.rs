//! The barriers that have been sent and have not returned yet. Pure: the caller says what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Missed barriers after which the listener is dead.
const MISSED_MAX: usize = 3;
/// Barriers that are remembered; more mean that the listener is being rebuilt.
const OUTSTANDING_MAX: usize = 64;

#[derive(Debug)]
struct Barrier {
    number: u64,
    sent: Instant,
    committed: Option<Instant>,
}

/// The barriers of one process that are outstanding.
///
/// A barrier is missed when it committed an interval ago or more and has not returned. One that has not
/// committed is not missed, however old: it says nothing about the listener.
#[derive(Debug)]
pub(super) struct OutstandingBarriers {
    interval: Duration,
    last_number: u64,
    barriers: VecDeque<Barrier>,
}

impl OutstandingBarriers {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            last_number: 0,
            barriers: VecDeque::new(),
        }
    }

    /// A barrier is being sent; returns its number.
    pub(super) fn send(&mut self, now: Instant) -> u64 {
        self.last_number += 1;
        if self.barriers.len() == OUTSTANDING_MAX {
            self.barriers.pop_front();
        }
        self.barriers.push_back(Barrier {
            number: self.last_number,
            sent: now,
            committed: None,
        });
        self.last_number
    }

    /// The barrier has committed. It may have returned before.
    pub(super) fn commit(&mut self, number: u64, now: Instant) {
        let barrier = self.barriers.iter_mut().find(|b| b.number == number);
        if let Some(barrier) = barrier {
            barrier.committed = Some(now);
        }
    }

    /// The barrier will not commit.
    pub(super) fn withdraw(&mut self, number: u64) {
        self.barriers.retain(|barrier| barrier.number != number);
    }

    /// The barrier has returned, and so all before it, since notifications come in the order of commits.
    /// Returns how long it took; `None` for a barrier that is not outstanding.
    pub(super) fn complete(&mut self, number: u64, now: Instant) -> Option<Duration> {
        let sent = self.barriers.iter().find(|b| b.number == number)?.sent;
        self.barriers.retain(|barrier| barrier.number > number);
        Some(now.duration_since(sent))
    }

    /// Forgets all: the connection that they would have returned on is gone.
    pub(super) fn clear(&mut self) {
        self.barriers.clear();
    }

    /// How many barriers the listener has missed, when they prove it dead. Forgets them, so that they
    /// are reported once.
    pub(super) fn take_missed(&mut self, now: Instant) -> Option<usize> {
        let is_missed = |barrier: &&Barrier| {
            let since = barrier.committed.map(|at| now.duration_since(at));
            since.is_some_and(|since| since >= self.interval)
        };
        let missed = self.barriers.iter().filter(is_missed).count();
        if missed < MISSED_MAX {
            return None;
        }
        self.clear();
        Some(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn three_committed_barriers_that_do_not_return_prove_the_listener_dead() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        for second in 0..3 {
            let number = outstanding.send(start + seconds(second));
            outstanding.commit(number, start + seconds(second));
        }
        let almost = start + Duration::from_millis(2_999);
        assert_eq!(outstanding.take_missed(almost), None);
        assert_eq!(outstanding.take_missed(start + seconds(3)), Some(3));
        assert_eq!(outstanding.take_missed(start + seconds(9)), None, "once");
    }

    #[test]
    fn a_barrier_that_does_not_commit_is_not_missed() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        for _ in 0..5 {
            outstanding.send(start);
        }
        assert_eq!(outstanding.take_missed(start + seconds(60)), None);
    }

    #[test]
    fn a_barrier_that_returns_completes_those_before_it() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let numbers: Vec<u64> = (0..4).map(|_| outstanding.send(start)).collect();
        for number in &numbers {
            outstanding.commit(*number, start);
        }
        let soon = start + Duration::from_millis(5);
        assert_eq!(outstanding.complete(numbers[1], soon), Some(soon - start));
        assert_eq!(outstanding.complete(numbers[0], soon), None);
        assert_eq!(outstanding.complete(numbers[1], soon), None);
        // Two are left: fewer than prove anything.
        assert_eq!(outstanding.take_missed(start + seconds(60)), None);
        assert!(outstanding.complete(numbers[3], soon).is_some());
    }

    #[test]
    fn a_withdrawn_or_forgotten_barrier_is_not_outstanding() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let (first, second) = (outstanding.send(start), outstanding.send(start));
        outstanding.withdraw(first);
        assert_eq!(outstanding.complete(first, start), None);
        outstanding.clear();
        assert_eq!(outstanding.complete(second, start), None);
        assert!(outstanding.send(start) > second, "numbers are not reused");
    }

    #[test]
    fn the_memory_of_barriers_is_bounded() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let first = outstanding.send(start);
        for _ in 0..OUTSTANDING_MAX {
            outstanding.send(start);
        }
        assert_eq!(outstanding.complete(first, start), None);
        assert!(outstanding.complete(first + 1, start).is_some());
    }
}
