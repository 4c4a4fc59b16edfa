//! The schedule: when to read the log, whether the wake lock is wanted, and what moves the position.
//!
//! With `notify` every event notifies and a barrier moves the position. With `tail` triggers are
//! silent: the log is read in a loop, and only a read moves the position. `adaptive` is the first while
//! it is quiet and the second while any server is awake. Some events may be silent even while it is
//! quiet, so a notification only says that the log has something, and only a read moves the position.
//! When a barrier has found that events notify again, the log is read on until every transaction that
//! may have stayed silent has ended. While the write-ahead log brings the log's rows (`wal`), nothing is read, and the
//! barriers among the rows move the position. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

use super::control_message::BarrierState;
use crate::config::Ingest;
use crate::protocol::Snapshot;

/// Between two reads that both found something.
const READ_PAUSE_MIN: Duration = Duration::from_millis(1);
/// Between two reads when nothing has come for a while.
const READ_PAUSE_MAX: Duration = Duration::from_millis(50);
/// In between, the pause is this part of the time for which nothing has come.
const READ_PAUSE_SHARE: u32 = 8;
/// While events come, the pause is this many times what the read took: where processors are short, reads leave them to
/// the writers, and each brings more.
const READ_PAUSE_TIMES: u32 = 2;
/// But at most this long.
const READ_PAUSE_BUSY_MAX: Duration = Duration::from_millis(8);
/// Between two reads that only notifications ask for. Any role may notify, and a storm of notifications must
/// not become a storm of reads.
const RUNG_READ_PAUSE: Duration = Duration::from_millis(5);
/// The rate of events is measured over this time.
const RATE_WINDOW: Duration = Duration::from_millis(500);
/// Events in a second from which on the server reads the log instead of being notified.
const WAKE_EVENTS_PER_SECOND: u64 = 200;
/// Events in a second below which it may sleep again.
const SLEEP_EVENTS_PER_SECOND: u64 = 100;
/// Time for which the rate must have been below that.
const SLEEP_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Events notify.
    Notified,
    /// Somebody says that events are about to be silent. Until a barrier that was sent after this says whether they are,
    /// the log is read.
    Doubtful(Instant),
    /// Events may be silent.
    Tailing,
    /// The write-ahead log brings every row of the log, in the order of commits, whether or not events notify.
    Streaming,
    /// Events notify again, but transactions that stayed silent may still be running: those with a
    /// number below this one. `None` until a read has shown it, in the schema before migration 5.
    Settling(Option<u64>),
}

/// Decides when the log is read next.
#[derive(Debug)]
pub(super) struct Schedule {
    ingest: Ingest,
    phase: Phase,
    /// Whether events have ever been silent. A transaction with an old snapshot may still read the old
    /// way of ingest, however long ago it was changed.
    has_tailed: bool,
    /// Whether the wake lock is wanted; only with `adaptive`.
    awake: bool,
    next_read: Instant,
    /// When the last read began.
    read_began: Instant,
    /// The earliest time for a read that only a notification asks for.
    rung_read: Instant,
    /// When a read last found something.
    found: Instant,
    window_begun: Instant,
    window_events: u64,
    quiet_since: Option<Instant>,
}

impl Schedule {
    /// The schedule of the first connection.
    pub(super) fn new(ingest: Ingest, now: Instant) -> Self {
        let mut schedule = Self {
            ingest,
            phase: Phase::Notified,
            has_tailed: false,
            awake: false,
            next_read: now,
            read_began: now,
            rung_read: now,
            found: now,
            window_begun: now,
            window_events: 0,
            quiet_since: None,
        };
        schedule.reconnected(ingest, now);
        schedule
    }

    /// There is a new connection. Unless every event notifies, the log is read until a barrier says that
    /// events are not silent.
    pub(super) fn reconnected(&mut self, ingest: Ingest, now: Instant) {
        self.ingest = ingest;
        self.awake &= ingest == Ingest::Adaptive;
        if self.has_tailed || ingest != Ingest::Notify {
            self.begin_tailing(now);
        }
    }

    /// When to read the log next; `None` while events notify or are streamed.
    pub(super) fn next_read(&self) -> Option<Instant> {
        let comes_by_itself = matches!(self.phase, Phase::Notified | Phase::Streaming);
        (!comes_by_itself).then_some(self.next_read)
    }

    /// Every row of the log comes by itself from here on.
    pub(super) fn stream(&mut self) {
        (self.phase, self.has_tailed) = (Phase::Streaming, true);
    }

    /// Rows no longer come by themselves. Returns whether they did.
    pub(super) fn end_stream(&mut self, now: Instant) -> bool {
        let has_streamed = self.is_streaming();
        if has_streamed {
            self.begin_tailing(now);
        }
        has_streamed
    }

    /// Whether every row of the log comes by itself.
    pub(super) fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming
    }

    /// Whether the rows are to come by themselves.
    pub(super) fn wants_stream(&self) -> bool {
        self.ingest == Ingest::Wal
    }

    /// The earliest time for a read that only a notification asks for.
    pub(super) fn rung_read(&self) -> Instant {
        self.rung_read
    }

    /// Whether every event notifies, so that notifications alone are all events in their order.
    pub(super) fn trusts_notifications(&self) -> bool {
        self.ingest == Ingest::Notify && self.phase == Phase::Notified && !self.has_tailed
    }

    /// The log has something new. Returns whether it is read soon anyway.
    pub(super) fn hasten(&mut self, now: Instant) -> bool {
        self.found = now;
        self.next_read = self.next_read.min(now + READ_PAUSE_MIN);
        self.phase != Phase::Notified
    }

    /// Whether the wake lock is wanted.
    pub(super) fn wants_wake_lock(&self) -> bool {
        self.awake
    }

    /// A barrier has returned. Returns whether it is completed; if not, the next read of the log completes it.
    pub(super) fn barrier(&mut self, barrier: &BarrierState, now: Instant) -> bool {
        self.ingest = barrier.ingest;
        self.awake &= barrier.ingest == Ingest::Adaptive;
        let is_answered = match self.phase {
            Phase::Tailing => true,
            Phase::Doubtful(since) => barrier.cursor.sent >= Some(since),
            Phase::Notified | Phase::Settling(_) => false,
            Phase::Streaming => return false,
        };
        if barrier.silent || self.awake {
            self.begin_tailing(now);
        } else if is_answered {
            // The barrier took its number when it had found that events notify: a transaction that found otherwise
            // has a lower one.
            (self.phase, self.next_read) = (Phase::Settling(barrier.transaction), now);
        }
        self.trusts_notifications()
    }

    /// Events are about to be silent: a server announces that it reads the log, or the way of ingest changes. What comes
    /// from here on may depend on a silent event.
    ///
    /// Any role may say so. So it is asked of a barrier before it is believed for good.
    pub(super) fn silence_announced(&mut self, now: Instant) {
        if self.is_streaming() {
            return;
        }
        if self.ingest == Ingest::Adaptive {
            self.begin_tailing(now);
        } else if matches!(self.phase, Phase::Notified | Phase::Settling(_)) {
            (self.phase, self.next_read) = (Phase::Doubtful(now), now);
        }
    }

    /// Events were routed; measures how many in a second. `filling`: PostgreSQL's notification queue is
    /// filling up.
    pub(super) fn routed(&mut self, events: u64, filling: bool, now: Instant) {
        self.window_events += events;
        let elapsed = now.duration_since(self.window_begun);
        // A burst is recognised before its window has ended.
        let rate = self.window_events as f64 / elapsed.max(RATE_WINDOW).as_secs_f64();
        if elapsed < RATE_WINDOW && (self.awake || rate < WAKE_EVENTS_PER_SECOND as f64) {
            return;
        }
        (self.window_begun, self.window_events) = (now, 0);
        if self.ingest != Ingest::Adaptive || self.is_streaming() {
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

    /// A read begins.
    pub(super) fn begin_read(&mut self, now: Instant) {
        self.read_began = now;
    }

    /// The log was read in this snapshot, and brought so many new events.
    pub(super) fn read(&mut self, snapshot: &Snapshot, events: u64, now: Instant) {
        if events > 0 {
            self.found = now;
        }
        let idle = now.duration_since(self.found) / READ_PAUSE_SHARE;
        let took = now.duration_since(self.read_began) * READ_PAUSE_TIMES;
        let pause = idle.max(took.min(READ_PAUSE_BUSY_MAX));
        self.next_read = now + pause.clamp(READ_PAUSE_MIN, READ_PAUSE_MAX);
        self.rung_read = now + RUNG_READ_PAUSE;
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

    /// A barrier of transaction 9.
    fn barrier(ingest: Ingest, silent: bool) -> BarrierState {
        BarrierState {
            cursor: "1-1.9:9:".parse().unwrap(),
            ingest,
            silent,
            queue_usage: 0.0,
            transaction: Some(9),
        }
    }

    /// Adaptive, asleep, and no transaction that stayed silent is left.
    fn settled(now: Instant) -> Schedule {
        let mut schedule = Schedule::new(Ingest::Adaptive, now);
        assert!(schedule.next_read().is_some(), "a server may be awake");
        schedule.barrier(&barrier(Ingest::Adaptive, false), now);
        for _ in 0..2 {
            schedule.read(&snapshot("9:9:"), 0, now);
        }
        schedule
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
    fn while_rows_are_streamed_nothing_is_read_and_afterwards_everything_is() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Ingest::Wal, now);
        assert!(schedule.wants_stream() && schedule.next_read().is_some());
        schedule.stream();
        assert!(!schedule.barrier(&barrier(Ingest::Wal, true), now));
        schedule.silence_announced(now);
        schedule.routed(1_000_000, true, now + RATE_WINDOW);
        assert_eq!(
            (schedule.next_read(), schedule.wants_wake_lock()),
            (None, false)
        );
        assert!(schedule.hasten(now), "the row comes by itself");
        assert!(!schedule.trusts_notifications());
        assert!(schedule.end_stream(now) && !schedule.end_stream(now));
        assert!(schedule.next_read().is_some());
        // Another way was chosen meanwhile.
        schedule.stream();
        schedule.barrier(&barrier(Ingest::Notify, false), now);
        assert!(!schedule.wants_stream() && schedule.is_streaming());
    }

    #[test]
    fn with_notify_a_barrier_is_completed_and_the_log_is_not_read() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Ingest::Notify, now);
        assert!(schedule.barrier(&barrier(Ingest::Notify, false), now));
        schedule.routed(1_000_000, true, now + RATE_WINDOW);
        assert_eq!(
            (schedule.next_read(), schedule.wants_wake_lock()),
            (None, false)
        );
    }

    #[test]
    fn with_tail_the_log_is_read_fast_while_busy_and_slower_while_idle() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Ingest::Tail, now);
        assert!(!schedule.barrier(&barrier(Ingest::Tail, true), now));
        schedule.read(&snapshot("9:9:"), 1, now);
        for (idle_ms, pause_ms) in [(1, 1), (24, 3), (80, 10), (400, 50), (10_000, 50)] {
            let idle = now + Duration::from_millis(idle_ms);
            schedule.begin_read(idle);
            schedule.read(&snapshot("9:9:"), 0, idle);
            let pause = Duration::from_millis(pause_ms);
            assert_eq!(
                schedule.next_read(),
                Some(idle + pause),
                "after {idle_ms} ms"
            );
        }
    }

    #[test]
    fn while_reads_take_long_they_are_fewer() {
        let began = Instant::now();
        let mut schedule = Schedule::new(Ingest::Tail, began);
        for (took_us, pause_us) in [(100, 1_000), (900, 1_800), (3_000, 6_000), (900_000, 8_000)] {
            let now = began + Duration::from_micros(took_us);
            schedule.begin_read(began);
            schedule.read(&snapshot("9:9:"), 1, now);
            let pause = Duration::from_micros(pause_us);
            assert_eq!(schedule.next_read(), Some(now + pause), "{took_us} us");
        }
    }

    #[test]
    fn adaptive_wakes_when_busy_and_sleeps_when_it_has_long_been_quiet() {
        let start = Instant::now();
        let mut window = windows(start);
        let mut schedule = settled(start);
        // Even asleep, only reading moves the position: a server elsewhere may be awake.
        assert!(!schedule.barrier(&barrier(Ingest::Adaptive, false), start));
        schedule.routed(WAKE_EVENTS_PER_SECOND / 4, false, window());
        assert!(!schedule.wants_wake_lock() && schedule.next_read().is_none());
        schedule.routed(WAKE_EVENTS_PER_SECOND, false, window());
        assert!(schedule.wants_wake_lock() && schedule.next_read().is_some());
        // Between the thresholds it stays as it is.
        for _ in 0..20 {
            schedule.routed(SLEEP_EVENTS_PER_SECOND / 2 + 10, false, window());
        }
        assert!(schedule.wants_wake_lock());
        for _ in 0..=10 {
            assert!(schedule.wants_wake_lock());
            schedule.routed(1, false, window());
        }
        assert!(!schedule.wants_wake_lock() && schedule.next_read().is_some());
    }

    #[test]
    fn adaptive_wakes_in_a_burst_at_once() {
        let start = Instant::now();
        let mut schedule = settled(start);
        let soon = start + Duration::from_millis(20);
        schedule.routed(WAKE_EVENTS_PER_SECOND / 2 - 1, false, soon);
        assert!(!schedule.wants_wake_lock());
        schedule.routed(1, false, soon);
        assert!(schedule.wants_wake_lock());
        // With another way of ingest it never wakes.
        let mut schedule = Schedule::new(Ingest::Notify, start);
        schedule.routed(1_000_000, false, soon);
        assert!(!schedule.wants_wake_lock());
    }

    #[test]
    fn while_another_server_is_awake_the_log_is_read() {
        let now = Instant::now();
        let mut schedule = settled(now);
        assert!(schedule.next_read().is_none());
        schedule.silence_announced(now);
        assert!(schedule.next_read().is_some());
        let mut schedule = settled(now);
        schedule.barrier(&barrier(Ingest::Adaptive, true), now);
        schedule.read(&snapshot("20:20:"), 0, now);
        assert!(schedule.next_read().is_some() && !schedule.wants_wake_lock());
    }

    /// Notifications of transactions that end after the change may depend on events that are silent by then.
    #[test]
    fn a_change_of_the_way_is_not_trusted_until_a_later_barrier_says_what_it_is() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Ingest::Notify, now);
        assert!(schedule.trusts_notifications());
        schedule.silence_announced(now);
        assert!(!schedule.trusts_notifications() && schedule.next_read().is_some());
        // It was sent before, and may have seen nothing of the change.
        schedule.barrier(&barrier(Ingest::Notify, false), now);
        assert!(!schedule.trusts_notifications());
        let mut later = barrier(Ingest::Notify, false);
        later.cursor.sent = Some(now + Duration::from_millis(1));
        schedule.barrier(&later, now);
        schedule.read(&snapshot("9:12:"), 0, now);
        assert!(schedule.trusts_notifications(), "it was a false alarm");
        schedule.silence_announced(now);
        schedule.barrier(&barrier(Ingest::Tail, true), now);
        schedule.read(&snapshot("20:20:"), 0, now);
        assert!(!schedule.trusts_notifications() && schedule.next_read().is_some());
    }

    #[test]
    fn a_filling_notification_queue_wakes_it_at_any_rate() {
        let start = Instant::now();
        let mut schedule = settled(start);
        schedule.routed(0, true, start + RATE_WINDOW);
        assert!(schedule.wants_wake_lock());
    }

    /// A read's snapshot ends at the highest transaction that has ended, and a silent one may be running above.
    #[test]
    fn falling_asleep_it_reads_until_all_silent_transactions_have_ended() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Ingest::Tail, now);
        let asleep = BarrierState {
            transaction: Some(25),
            ..barrier(Ingest::Notify, false)
        };
        assert!(
            !schedule.barrier(&asleep, now),
            "silent events may be visible to this barrier"
        );
        for running in ["10:20:10,15", "20:20:", "24:30:24,28"] {
            schedule.read(&snapshot(running), 0, now);
            assert!(schedule.next_read().is_some(), "{running}");
        }
        // A later barrier does not prolong it.
        let later = BarrierState {
            transaction: Some(29),
            ..barrier(Ingest::Notify, false)
        };
        schedule.barrier(&later, now);
        schedule.read(&snapshot("25:30:25,28"), 0, now);
        assert!(schedule.next_read().is_none());
        assert!(
            !schedule.barrier(&later, now),
            "a transaction with an old snapshot may yet be silent"
        );
    }

    #[test]
    fn before_migration_5_it_reads_until_those_of_the_first_read_have_ended() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Ingest::Tail, now);
        let asleep = BarrierState {
            transaction: None,
            ..barrier(Ingest::Notify, false)
        };
        schedule.barrier(&asleep, now);
        for running in ["10:20:10,15", "10:25:10", "19:30:19"] {
            schedule.read(&snapshot(running), 0, now);
            assert!(schedule.next_read().is_some(), "{running}");
        }
        schedule.read(&snapshot("20:30:20,21"), 0, now);
        assert!(schedule.next_read().is_none());
    }
}
