//! When to read the log: how often, whether triggers notify, and what moves the position.
//!
//! With `notify` every event notifies and a barrier moves the position. With `tail` triggers are
//! silent: the log is read in a loop, and only what was read moves the position. `adaptive` is the
//! first while it is quiet and the second while any server is awake; since some events may be silent even
//! then, a notification is a ring at the door: the log is read, and only that moves the position. When a
//! barrier has found that events notify again, the log is read on until every transaction that may have
//! stayed silent has ended. Pure but for the clock.

use std::time::{Duration, Instant};

use crate::config::Ingest;
use crate::ingest::wake_lock::{SLEEP_AFTER, SLEEP_EVENTS_PER_SECOND, WAKE_EVENTS_PER_SECOND};
use crate::protocol::Snapshot;

/// Between two reads that both found something.
const READ_PAUSE_MIN: Duration = Duration::from_millis(1);
/// Between two reads when nothing has come for a while.
const READ_PAUSE_MAX: Duration = Duration::from_millis(50);
/// In between, the pause is this part of the time that nothing has come for.
const READ_PAUSE_SHARE: u32 = 8;
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
    next_read: Instant,
    /// When a read last found something.
    found: Instant,
    window_begun: Instant,
    window_events: u64,
    quiet_since: Option<Instant>,
}

impl Pace {
    /// The pace of the first connection.
    #[must_use]
    pub fn new(ingest: Ingest, now: Instant) -> Self {
        let mut pace = Self {
            ingest,
            phase: Phase::Notified,
            has_tailed: false,
            awake: false,
            next_read: now,
            found: now,
            window_begun: now,
            window_events: 0,
            quiet_since: None,
        };
        pace.rejoin(ingest, now);
        pace
    }

    /// There is a new connection. Unless every event notifies, the log is read until a barrier says that
    /// events are not silent.
    pub fn rejoin(&mut self, ingest: Ingest, now: Instant) {
        self.ingest = ingest;
        self.awake &= ingest == Ingest::Adaptive;
        if self.has_tailed || ingest != Ingest::Notify {
            self.begin_tailing(now);
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
        self.found = now;
        self.next_read = self.next_read.min(now + READ_PAUSE_MIN);
        self.phase != Phase::Notified
    }

    /// Whether the doorbell's lock is wanted.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// A barrier came back: its transaction saw this way of ingest, and whether events may be silent.
    /// Returns whether the barrier moves the position; if not, the log is to be read.
    pub fn barrier(&mut self, ingest: Ingest, silent: bool, now: Instant) -> bool {
        self.ingest = ingest;
        self.awake &= ingest == Ingest::Adaptive;
        if silent || self.awake {
            self.begin_tailing(now);
        } else if self.phase == Phase::Tailing {
            (self.phase, self.next_read) = (Phase::Settling(None), now);
        }
        self.trusts_notifications()
    }

    /// A server says that it is about to read the log: events will be silent.
    pub fn other_awake(&mut self, now: Instant) {
        if self.ingest == Ingest::Adaptive {
            self.begin_tailing(now);
        }
    }

    /// Events were routed; measures how many in a second. `filling` says that PostgreSQL's queue of
    /// notifications is filling up.
    pub fn routed(&mut self, events: u64, filling: bool, now: Instant) {
        self.window_events += events;
        let elapsed = now.duration_since(self.window_begun);
        // A rush need not be measured to its end.
        let rate = self.window_events as f64 / elapsed.max(RATE_WINDOW).as_secs_f64();
        if elapsed < RATE_WINDOW && (self.awake || rate < WAKE_EVENTS_PER_SECOND as f64) {
            return;
        }
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
            self.begin_tailing(now);
        } else if self.awake && quiet {
            self.awake = false;
        }
    }

    fn begin_tailing(&mut self, now: Instant) {
        if self.phase != Phase::Tailing {
            self.next_read = now;
        }
        (self.phase, self.has_tailed) = (Phase::Tailing, true);
    }

    /// The log was read in this snapshot, and brought so many new events.
    pub fn read(&mut self, snapshot: &Snapshot, events: u64, now: Instant) {
        if events > 0 {
            self.found = now;
        }
        let pause = now.duration_since(self.found) / READ_PAUSE_SHARE;
        self.next_read = now + pause.clamp(READ_PAUSE_MIN, READ_PAUSE_MAX);
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

    /// Adaptive, asleep, and nobody silent is left.
    fn settled(now: Instant) -> Pace {
        let mut pace = Pace::new(Ingest::Adaptive, now);
        assert!(pace.next_read().is_some(), "a server may be awake");
        pace.barrier(Ingest::Adaptive, false, now);
        for _ in 0..2 {
            pace.read(&snapshot("9:9:"), 0, now);
        }
        pace
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
        assert!(pace.barrier(Ingest::Notify, false, now));
        pace.routed(1_000_000, true, now + RATE_WINDOW);
        assert_eq!((pace.next_read(), pace.is_awake()), (None, false));
    }

    #[test]
    fn tailing_reads_fast_while_busy_and_slower_while_idle() {
        let now = Instant::now();
        let mut pace = Pace::new(Ingest::Tail, now);
        assert!(!pace.barrier(Ingest::Tail, true, now));
        pace.read(&snapshot("9:9:"), 1, now);
        for (idle_ms, pause_ms) in [(1, 1), (24, 3), (80, 10), (400, 50), (10_000, 50)] {
            let idle = now + Duration::from_millis(idle_ms);
            pace.read(&snapshot("9:9:"), 0, idle);
            let pause = Duration::from_millis(pause_ms);
            assert_eq!(pace.next_read(), Some(idle + pause), "after {idle_ms} ms");
        }
    }

    #[test]
    fn adaptive_wakes_when_busy_and_sleeps_when_it_has_long_been_quiet() {
        let start = Instant::now();
        let mut window = windows(start);
        let mut pace = settled(start);
        // Even asleep, only reading moves the position: a server elsewhere may be awake.
        assert!(!pace.barrier(Ingest::Adaptive, false, start));
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
        assert!(!pace.is_awake() && pace.next_read().is_some());
    }

    #[test]
    fn adaptive_wakes_in_a_rush_at_once() {
        let start = Instant::now();
        let mut pace = settled(start);
        let soon = start + Duration::from_millis(20);
        pace.routed(WAKE_EVENTS_PER_SECOND / 2 - 1, false, soon);
        assert!(!pace.is_awake());
        pace.routed(1, false, soon);
        assert!(pace.is_awake());
        // Asleep or tailing, one that is not asked to decide does not.
        let mut pace = Pace::new(Ingest::Notify, start);
        pace.routed(1_000_000, false, soon);
        assert!(!pace.is_awake());
    }

    #[test]
    fn while_another_server_is_awake_the_log_is_read() {
        let now = Instant::now();
        let mut pace = settled(now);
        assert!(pace.next_read().is_none());
        pace.other_awake(now);
        assert!(pace.next_read().is_some());
        let mut pace = settled(now);
        pace.barrier(Ingest::Adaptive, true, now);
        pace.read(&snapshot("20:20:"), 0, now);
        assert!(pace.next_read().is_some() && !pace.is_awake());
    }

    #[test]
    fn a_filling_queue_wakes_it_at_any_rate() {
        let start = Instant::now();
        let mut pace = settled(start);
        pace.routed(0, true, start + RATE_WINDOW);
        assert!(pace.is_awake());
    }

    #[test]
    fn falling_asleep_it_reads_until_nobody_silent_is_left() {
        let now = Instant::now();
        let mut pace = Pace::new(Ingest::Tail, now);
        assert!(
            !pace.barrier(Ingest::Notify, false, now),
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
            !pace.barrier(Ingest::Notify, false, now),
            "one with an old snapshot may yet be silent"
        );
    }
}
