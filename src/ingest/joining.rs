//! How a new connection joins what was routed before it. Pure.

use crate::config::Ingest;
use crate::protocol::{Cursor, ResetReason, Snapshot};

/// What the listener does once LISTEN has been answered, from where on no commit is missed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// The database has no log: live events only. What was committed while nobody listened is lost,
    /// which `reset` says to the clients.
    WithoutLog { reset: bool },
    /// The first connection: the stream begins with the present.
    Begin(Cursor),
    /// Read what was committed since this position, then go on. A position of another history shows in the read.
    CatchUp(Snapshot),
    /// What was missed cannot be known: every client fetches its state anew and goes on from here.
    Restart(ResetReason, Cursor),
}

impl Joining {
    /// `present` is the log's cursor, `None` in a database that has no log; `position` the last committed
    /// barrier; `without_log` the last barrier that returned over this connection and found no log: what it sees
    /// was routed, and is not in the log; `has_listened` whether any connection has been live.
    pub(super) fn decide(
        present: Option<Cursor>,
        position: Option<&Cursor>,
        without_log: Option<&Snapshot>,
        has_listened: bool,
    ) -> Self {
        let Some(present) = present else {
            return Self::WithoutLog {
                reset: has_listened && without_log.is_none(),
            };
        };
        match position {
            Some(position) => Self::CatchUp(position.snapshot.clone()),
            None => match without_log {
                Some(snapshot) => Self::CatchUp(snapshot.clone()),
                None if has_listened => Self::Restart(ResetReason::NoLog, present),
                None => Self::Begin(present),
            },
        }
    }
}

/// The way of ingest to begin with, where the settings want another than the database has had. When
/// they want `notify`, events may still be silent: a barrier will say when none is.
pub(super) fn ingest_after_change(stored: Ingest, wanted: Ingest) -> Ingest {
    if stored == Ingest::Notify {
        wanted
    } else {
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_connection_begins_with_the_present() {
        let joining = Joining::decide(Some(cursor("1-1.9:9:")), None, None, false);
        assert_eq!(joining, Joining::Begin(cursor("1-1.9:9:")));
    }

    #[test]
    fn a_later_one_reads_what_came_since_the_last_barrier() {
        let position = cursor("1-1.5:7:6");
        for present in ["1-1.9:9:", "1-2.9:9:", "2-1.9:9:"] {
            let joining = Joining::decide(Some(cursor(present)), Some(&position), None, true);
            assert_eq!(joining, Joining::CatchUp("5:7:6".parse().unwrap()));
        }
    }

    #[test]
    fn without_a_log_only_a_gap_resets_the_clients() {
        for has_listened in [false, true] {
            let reset = has_listened;
            let joining = Joining::decide(None, None, None, has_listened);
            assert_eq!(joining, Joining::WithoutLog { reset });
        }
        // The log has come in the gap: what was live before it has no position.
        let joining = Joining::decide(Some(cursor("1-1.9:9:")), None, None, true);
        let expected = Joining::Restart(ResetReason::NoLog, cursor("1-1.9:9:"));
        assert_eq!(joining, expected);
    }

    #[test]
    fn a_log_that_comes_while_events_come_is_read_from_the_last_barrier_without_it() {
        let without_log: Snapshot = "5:7:6".parse().unwrap();
        let joining = Joining::decide(Some(cursor("1-1.9:9:")), None, Some(&without_log), true);
        assert_eq!(joining, Joining::CatchUp(without_log.clone()));
        // It has gone again, and no event was missed.
        let joining = Joining::decide(None, None, Some(&without_log), true);
        assert_eq!(joining, Joining::WithoutLog { reset: false });
    }

    #[test]
    fn a_change_to_notify_waits_until_no_event_is_silent() {
        use Ingest::{Adaptive, Notify, Tail};
        assert_eq!(ingest_after_change(Notify, Tail), Tail);
        assert_eq!(ingest_after_change(Notify, Adaptive), Adaptive);
        assert_eq!(ingest_after_change(Tail, Notify), Tail);
        assert_eq!(ingest_after_change(Adaptive, Notify), Adaptive);
    }
}
