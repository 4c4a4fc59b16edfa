//! The barriers that have been sent and have not returned yet. Pure: the caller says what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::control_message::Nonce;

/// Missed barriers after which the listener is dead.
const MISSED_MAX: usize = 3;
/// Barriers that are remembered; more mean that the listener is being rebuilt.
const OUTSTANDING_MAX: usize = 64;

#[derive(Debug)]
struct Barrier {
    nonce: Nonce,
    sent: Instant,
    committed: Option<Instant>,
    /// Whether events came since, which were committed before it.
    is_behind: bool,
    /// Of one that is also a row of the log, which the stream of the write-ahead log brings back.
    row: Option<RowOf>,
}

/// What has come of a barrier that is also a row.
#[derive(Debug, Default)]
struct RowOf {
    /// Its notification.
    notified: bool,
    /// The row.
    streamed: bool,
}

impl Barrier {
    fn is_notified(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.notified)
    }

    fn is_streamed(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.streamed)
    }
}

/// How long a barrier took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Took {
    /// Since it was sent.
    pub(super) since_sent: Duration,
    /// Since it was known to have committed; zero if it returned before.
    pub(super) since_committed: Duration,
}

/// The barriers of one process that are outstanding.
///
/// A barrier is missed when it committed an interval ago or more and has not returned. One that has not
/// committed is not missed, however old: it says nothing about the listener. Nor is one that stands behind events which
/// still come.
#[derive(Debug)]
pub(super) struct OutstandingBarriers {
    interval: Duration,
    /// In the order in which they were sent.
    barriers: VecDeque<Barrier>,
}

impl OutstandingBarriers {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            barriers: VecDeque::new(),
        }
    }

    /// A barrier is being sent.
    pub(super) fn send(&mut self, nonce: Nonce, is_row: bool, now: Instant) {
        if self.barriers.len() == OUTSTANDING_MAX {
            self.barriers.pop_front();
        }
        self.barriers.push_back(Barrier {
            nonce,
            sent: now,
            committed: None,
            is_behind: false,
            row: is_row.then(RowOf::default),
        });
    }

    /// The barrier has committed. It may have returned before.
    pub(super) fn commit(&mut self, nonce: Nonce, now: Instant) {
        let barrier = self.barriers.iter_mut().find(|b| b.nonce == nonce);
        if let Some(barrier) = barrier {
            barrier.committed = Some(now);
        }
    }

    /// The barrier will not commit.
    pub(super) fn withdraw(&mut self, nonce: Nonce) {
        self.barriers.retain(|barrier| barrier.nonce != nonce);
    }

    /// The barrier has returned, and so all before it, since notifications come in the order of commits.
    /// Returns how long it took; `None` for a barrier that is not outstanding, as one that has returned before.
    pub(super) fn complete(&mut self, nonce: Nonce, now: Instant) -> Option<Took> {
        let index = self.barriers.iter().position(|b| b.nonce == nonce)?;
        let barrier = self.barriers.drain(..=index).next_back()?;
        let committed = barrier.committed.map(|at| now.duration_since(at));
        Some(Took {
            since_sent: now.duration_since(barrier.sent),
            since_committed: committed.unwrap_or_default(),
        })
    }

    /// The notification of a barrier has come that is also a row, and so those of all before it. Returns whether it is
    /// one: its row completes it.
    pub(super) fn row_notified(&mut self, nonce: Nonce) -> bool {
        let index = self.barriers.iter().position(|b| b.nonce == nonce);
        let Some(index) = index.filter(|index| self.barriers[*index].row.is_some()) else {
            return false;
        };
        for row in self.rows_up_to(index) {
            row.notified = true;
        }
        self.forget_complete_rows();
        true
    }

    /// The row of a barrier has come, and so those of all before it. Returns how long it took. It is outstanding until its
    /// notification has come as well.
    pub(super) fn complete_row(&mut self, nonce: Nonce, now: Instant) -> Option<Took> {
        let index = self.barriers.iter().position(|b| b.nonce == nonce)?;
        let barrier = &self.barriers[index];
        if barrier.row.is_none() || barrier.is_streamed() {
            return None;
        }
        let committed = barrier.committed.map(|at| now.duration_since(at));
        let took = Took {
            since_sent: now.duration_since(barrier.sent),
            since_committed: committed.unwrap_or_default(),
        };
        for row in self.rows_up_to(index) {
            row.streamed = true;
        }
        self.forget_complete_rows();
        Some(took)
    }

    fn rows_up_to(&mut self, index: usize) -> impl Iterator<Item = &mut RowOf> {
        let barriers = self.barriers.range_mut(..=index);
        barriers.filter_map(|barrier| barrier.row.as_mut())
    }

    fn forget_complete_rows(&mut self) {
        self.barriers
            .retain(|barrier| !(barrier.is_notified() && barrier.is_streamed()));
    }

    /// Whether the rows of barriers do not come that have committed and were notified. Then no row is waited for any more.
    pub(super) fn take_silent_stream(&mut self, now: Instant) -> bool {
        let is_due = |at: Instant| now.duration_since(at) >= self.interval;
        let is_silent = |barrier: &&Barrier| {
            barrier.is_notified() && !barrier.is_streamed() && barrier.committed.is_some_and(is_due)
        };
        let is_dead = self.barriers.iter().filter(is_silent).count() >= MISSED_MAX;
        if is_dead {
            self.end_rows();
        }
        is_dead
    }

    /// No row comes any more. A barrier that has been notified does not return.
    pub(super) fn end_rows(&mut self) {
        self.barriers
            .retain(|barrier| !barrier.is_notified() && !barrier.is_streamed());
        for barrier in &mut self.barriers {
            barrier.row = None;
        }
    }

    /// Whether a barrier is late that stands behind nothing that is known of.
    pub(super) fn is_any_missed(&self, now: Instant) -> bool {
        self.barriers
            .iter()
            .any(|barrier| self.is_missed(barrier, now))
    }

    /// Events come that were committed before the barriers: the connection lives, and they will return.
    pub(super) fn stand_behind(&mut self) {
        for barrier in &mut self.barriers {
            barrier.is_behind |= barrier.committed.is_some();
        }
    }

    fn is_missed(&self, barrier: &Barrier, now: Instant) -> bool {
        let since = barrier.committed.map(|at| now.duration_since(at));
        !barrier.is_behind
            && !barrier.is_notified()
            && since.is_some_and(|since| since >= self.interval)
    }

    /// Forgets all: the connection that they would have returned on is gone.
    pub(super) fn clear(&mut self) {
        self.barriers.clear();
    }

    /// How many barriers the listener has missed, when they prove it dead. Forgets them, so that they
    /// are reported once.
    pub(super) fn take_missed(&mut self, now: Instant) -> Option<usize> {
        let missed = self.barriers.iter();
        let missed = missed
            .filter(|barrier| self.is_missed(barrier, now))
            .count();
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

    /// Sends a barrier and returns its nonce.
    fn send(outstanding: &mut OutstandingBarriers, now: Instant) -> Nonce {
        let nonce = Nonce::random();
        outstanding.send(nonce, false, now);
        nonce
    }

    #[test]
    fn a_barrier_that_is_a_row_is_outstanding_until_it_is_notified_and_streamed() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let nonces: Vec<Nonce> = (0..4).map(|_| Nonce::random()).collect();
        for nonce in &nonces {
            outstanding.send(*nonce, true, start);
            outstanding.commit(*nonce, start);
        }
        assert_eq!(
            outstanding.complete_row(nonces[0], start),
            Some(took(Duration::ZERO))
        );
        assert_eq!(outstanding.complete_row(nonces[0], start), None, "once");
        // Its notification, and those of the others, have not come.
        assert!(!outstanding.take_silent_stream(start + seconds(1)));
        assert!(outstanding.is_any_missed(start + seconds(1)));
        assert!(outstanding.row_notified(nonces[3]));
        assert!(!outstanding.is_any_missed(start + seconds(1)));
        assert_eq!(outstanding.take_missed(start + seconds(1)), None);
        // Three have been notified, and their rows do not come.
        assert!(outstanding.take_silent_stream(start + seconds(1)));
        assert!(!outstanding.take_silent_stream(start + seconds(1)), "once");
        assert_eq!(outstanding.complete_row(nonces[3], start), None);
    }

    #[test]
    fn when_the_stream_ends_a_barrier_that_was_not_notified_returns_by_its_notification() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let (notified, other) = (Nonce::random(), Nonce::random());
        outstanding.send(notified, true, start);
        outstanding.send(other, true, start);
        assert!(outstanding.row_notified(notified));
        outstanding.end_rows();
        assert_eq!(outstanding.complete(notified, start), None);
        assert!(!outstanding.row_notified(other));
        assert!(outstanding.complete(other, start).is_some());
    }

    /// Of a barrier that committed at once.
    fn took(since: Duration) -> Took {
        Took {
            since_sent: since,
            since_committed: since,
        }
    }

    #[test]
    fn three_committed_barriers_that_do_not_return_prove_the_listener_dead() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        for second in 0..3 {
            let nonce = send(&mut outstanding, start + seconds(second));
            outstanding.commit(nonce, start + seconds(second));
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
            send(&mut outstanding, start);
        }
        assert_eq!(outstanding.take_missed(start + seconds(60)), None);
    }

    #[test]
    fn a_barrier_that_returns_completes_those_before_it_and_counts_once() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let nonces: Vec<Nonce> = (0..4).map(|_| send(&mut outstanding, start)).collect();
        for nonce in &nonces {
            outstanding.commit(*nonce, start);
        }
        let soon = start + Duration::from_millis(5);
        assert_eq!(
            outstanding.complete(nonces[1], soon),
            Some(took(soon - start))
        );
        assert_eq!(outstanding.complete(nonces[0], soon), None);
        assert_eq!(outstanding.complete(nonces[1], soon), None);
        // Two are left: fewer than prove anything.
        assert_eq!(outstanding.take_missed(start + seconds(60)), None);
        assert!(outstanding.complete(nonces[3], soon).is_some());
    }

    #[test]
    fn barriers_behind_events_that_come_are_not_missed_and_still_return() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let commit = |outstanding: &mut OutstandingBarriers, second| {
            let nonce = send(outstanding, start + seconds(second));
            outstanding.commit(nonce, start + seconds(second));
            nonce
        };
        let first = commit(&mut outstanding, 0);
        for second in 1..9 {
            commit(&mut outstanding, second);
            assert!(outstanding.is_any_missed(start + seconds(second + 1)));
            outstanding.stand_behind();
            assert!(!outstanding.is_any_missed(start + seconds(60)));
        }
        assert_eq!(outstanding.take_missed(start + seconds(60)), None);
        // Nothing comes any more.
        for second in 9..12 {
            assert_eq!(outstanding.take_missed(start + seconds(second)), None);
            commit(&mut outstanding, second);
        }
        assert_eq!(
            outstanding.complete(first, start + seconds(12)),
            Some(took(seconds(12)))
        );
        assert_eq!(outstanding.take_missed(start + seconds(12)), Some(3));
    }

    #[test]
    fn a_barrier_that_has_not_committed_stands_behind_nothing() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let nonces: Vec<Nonce> = (0..3).map(|_| send(&mut outstanding, start)).collect();
        outstanding.stand_behind();
        for nonce in nonces {
            outstanding.commit(nonce, start);
        }
        assert_eq!(outstanding.take_missed(start + seconds(1)), Some(3));
    }

    #[test]
    fn a_withdrawn_or_forgotten_barrier_is_not_outstanding() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let (first, second) = (send(&mut outstanding, start), send(&mut outstanding, start));
        outstanding.withdraw(first);
        assert_eq!(outstanding.complete(first, start), None);
        outstanding.clear();
        assert_eq!(outstanding.complete(second, start), None);
    }

    #[test]
    fn the_memory_of_barriers_is_bounded() {
        let start = Instant::now();
        let mut outstanding = OutstandingBarriers::new(INTERVAL);
        let first = send(&mut outstanding, start);
        let second = send(&mut outstanding, start);
        for _ in 1..OUTSTANDING_MAX {
            send(&mut outstanding, start);
        }
        assert_eq!(outstanding.complete(first, start), None);
        assert!(outstanding.complete(second, start).is_some());
    }
}
