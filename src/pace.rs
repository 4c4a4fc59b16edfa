//! When to read the log: how often, whether triggers notify, and what moves the position.
//!
//! With `notify` every event notifies and a barrier moves the position. With `tail` triggers are
//! silent: the log is read in a loop, and only what was read moves the position. `adaptive` is the
//! first while it is quiet and the second while it is busy; since some events may be silent even then,
//! a notification is a ring at the door: the log is read, and only that moves the position. Going over to being notified,
//! the log is read on until every transaction that may have stayed silent has ended. Pure but for the
//! clock.

use std::time::{Duration, Instant};

use crate::cursor::Snapshot;
use crate::doorbell::{SLEEP_AFTER, SLEEP_EVENTS_PER_SECOND, WAKE_EVENTS_PER_SECOND};
use crate::log::Ingest;

/// Between two reads that both found something.
const READ_PAUSE_MIN: Duration = Duration::from_millis(3);
/// Between two reads when nothing has come for a while.
const READ_PAUSE_MAX: Duration = Duration::from_millis(50);
const RATE_WINDOW: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Events notify.
    Notified,
    /// Events may be silent.
    Tailing,
    /// Events notify again, but transactions may still be running that found no need to. `None` until
    /// a read has shown which those can be: all before this number.
    Settling(Option<u64>),
}

/// Decides when the log is read next.
#[derive(Debug)]
pub struct Pace {
    ingest: Ingest,
    phase: Phase,
    /// Whether events have been silent since this began. A transaction that reads with an old snapshot
    /// may still find that they are to be, however long ago that was changed.
    has_tailed: bool,
    /// Whether the doorbell's lock is wanted; only with `adaptive`.
    awake: bool,
    pause: Duration,
    next_read: Instant,
    window_begun: Instant,
    window_events: u64,
    quiet_since: Option<Instant>,
}

impl Pace {
    /// The pace right after a catch-up.
    #[must_use]
    pub fn new(ingest: Ingest, now: Instant) -> Self {
        let phase = if ingest == Ingest::Tail {
            Phase::Tailing
        } else {
            Phase::Notified
        };
        Self {
            ingest,
            phase,
            has_tailed: ingest == Ingest::Tail,
            awake: false,
            pause: READ_PAUSE_MIN,
            next_read: now,
            window_begun: now,
            window_events: 0,
            quiet_since: None,
        }
    }

    /// When to read the log next; `None` while events notify.
    #[must_use]
    pub fn next_read(&self) -> Option<Instant> {
        (self.phase != Phase::Notified).then_some(self.next_read)
    }

    /// Whether every event notifies, so that notifications alone are all events in their order.
    #[must_use]
    pub fn trusts_notifications(&self) -> bool {
        self.ingest == Ingest::Notify && self.phase == Phase::Notified && !self.has_tailed
    }

    /// Something is there to be read. Returns whether it will be soon, because the log is being read
    /// anyway.
    pub fn hasten(&mut self, now: Instant) -> bool {
        self.pause = READ_PAUSE_MIN;
        self.next_read = self.next_read.min(now + READ_PAUSE_MIN);
        self.phase != Phase::Notified
    }

    /// Whether the doorbell's lock is wanted.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// A barrier came back, and its transaction saw this way of ingest. Returns whether the barrier
    /// moves the position; if not, the log is to be read.
    pub fn barrier(&mut self, ingest: Ingest, now: Instant) -> bool {
        if ingest != self.ingest {
            self.ingest = ingest;
            self.awake &= ingest == Ingest::Adaptive;
            self.change(ingest == Ingest::Tail || self.awake, now);
        }
        self.trusts_notifications()
    }

    /// Events were routed; measures how many in a second. `filling` says that PostgreSQL's queue of
    /// notifications is filling up.
    pub fn routed(&mut self, events: u64, filling: bool, now: Instant) {
        self.window_events += events;
        let elapsed = now.duration_since(self.window_begun);
        if elapsed < RATE_WINDOW {
            return;
        }
        let rate = self.window_events as f64 / elapsed.as_secs_f64();
        (self.window_begun, self.window_events) = (now, 0);
        if self.ingest != Ingest::Adaptive {
            return;
        }
        if rate >= SLEEP_EVENTS_PER_SECOND as f64 || filling {
            self.quiet_since = None;
        } else {
            self.quiet_since.get_or_insert(now);
        }
        let quiet = self
            .quiet_since
            .is_some_and(|since| now.duration_since(since) >= SLEEP_AFTER);
        if !self.awake && (rate >= WAKE_EVENTS_PER_SECOND as f64 || filling) {
            self.awake = true;
            self.change(true, now);
        } else if self.awake && quiet {
            self.awake = false;
            self.change(false, now);
        }
    }

    fn change(&mut self, silent: bool, now: Instant) {
        self.has_tailed |= silent;
        self.phase = if silent {
            Phase::Tailing
        } else if self.phase == Phase::Notified {
            Phase::Notified
        } else {
            Phase::Settling(None)
        };
        (self.pause, self.next_read) = (READ_PAUSE_MIN, now);
    }

    /// The log was read in this snapshot, and brought so many new events.
    pub fn read(&mut self, snapshot: &Snapshot, events: u64, now: Instant) {
        self.pause = if events > 0 {
            READ_PAUSE_MIN
        } else {
            (self.pause * 2).min(READ_PAUSE_MAX)
        };
        self.next_read = now + self.pause;
        match self.phase {
            Phase::Settling(None) => self.phase = Phase::Settling(Some(snapshot.xmax())),
            Phase::Settling(Some(until)) if snapshot.xmin() >= until => {
                self.phase = Phase::Notified;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    /// Steps of the rate's window.
    fn windows(start: Instant) -> impl FnMut() -> Instant {
        let mut now = start;
        move || {
            now += RATE_WINDOW;
            now
        }
    }

    #[test]
    fn notified_a_barrier_moves_the_position_and_the_log_is_not_read() {
        let now = Instant::now();
        let mut pace = Pace::new(Ingest::Notify, now);
        assert!(pace.barrier(Ingest::Notify, now));
        pace.routed(1_000_000, true, now + RATE_WINDOW);
        assert_eq!((pace.next_read(), pace.is_awake()), (None, false));
    }

    #[test]
    fn tailing_reads_fast_while_busy_and_slower_while_idle() {
        let now = Instant::now();
        let mut pace = Pace::new(Ingest::Tail, now);
        assert!(!pace.barrier(Ingest::Tail, now));
        pace.read(&snapshot("9:9:"), 1, now);
        assert_eq!(pace.next_read(), Some(now + READ_PAUSE_MIN));
        for _ in 0..10 {
            pace.read(&snapshot("9:9:"), 0, now);
        }
        assert_eq!(pace.next_read(), Some(now + READ_PAUSE_MAX));
    }

    #[test]
    fn adaptive_wakes_when_busy_and_sleeps_when_it_has_long_been_quiet() {
        let start = Instant::now();
        let mut window = windows(start);
        let mut pace = Pace::new(Ingest::Adaptive, start);
        // Even asleep, only reading moves the position: a server elsewhere may be awake.
        assert!(!pace.barrier(Ingest::Adaptive, start));
        pace.routed(WAKE_EVENTS_PER_SECOND / 4, false, window());
        assert!(!pace.is_awake() && pace.next_read().is_none());
        pace.routed(WAKE_EVENTS_PER_SECOND, false, window());
        assert!(pace.is_awake() && pace.next_read().is_some());
        // Between the thresholds it stays as it is.
        for _ in 0..20 {
            pace.routed(SLEEP_EVENTS_PER_SECOND / 2 + 10, false, window());
        }
        assert!(pace.is_awake());
        for _ in 0..=10 {
            assert!(pace.is_awake());
            pace.routed(1, false, window());
        }
        assert!(!pace.is_awake());
    }

    #[test]
    fn a_filling_queue_wakes_it_at_any_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(Ingest::Adaptive, start);
        pace.routed(0, true, start + RATE_WINDOW);
        assert!(pace.is_awake());
    }

    #[test]
    fn falling_asleep_it_reads_until_nobody_silent_is_left() {
        let now = Instant::now();
        let mut pace = Pace::new(Ingest::Tail, now);
        assert!(
            !pace.barrier(Ingest::Notify, now),
            "silent events may be visible to this barrier"
        );
        pace.read(&snapshot("10:20:10,15"), 0, now);
        for running in ["10:25:10", "19:30:19"] {
            pace.read(&snapshot(running), 0, now);
            assert!(pace.next_read().is_some());
        }
        pace.read(&snapshot("20:30:20,21"), 0, now);
        assert!(pace.next_read().is_none());
        assert!(
            !pace.barrier(Ingest::Notify, now),
            "one with an old snapshot may yet be silent"
        );
    }
}
