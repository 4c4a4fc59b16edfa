//! A connection's position in the stream: which signals the client has been sent, and which cursor it may keep.
//! Pure: no I/O, no clock.
//!
//! Three rules make it safe. A signal with a sequence number that was taken is not taken again. A signal of a
//! transaction that the replay's snapshot sees was in the replay, or the client had it before. And the client's cursor
//! moves only to a cursor before which everything has been queued to this socket.

use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{Cursor, Sequence, Signal, Snapshot};

/// What becomes of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was sent before.
    Skip,
    /// It is new. `with_cursor` says whether a v1 client is given the event's cursor with it.
    Send {
        /// False while the client keeps the cursor of before a replay.
        with_cursor: bool,
    },
}

/// From where a signal came to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The subscription.
    Live,
    /// The replay buffer.
    Buffer,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) struct Position {
    /// The last signal that was routed before the subscription. The repair of a lag begins here until something
    /// has been taken.
    subscribed_after: Option<Sequence>,
    /// The reset with which the history began in which the client gets its first frame. The cursor of that frame has seen
    /// what was routed before.
    begun_after: Option<Sequence>,
    /// The last signal taken.
    sequence: Option<Sequence>,
    /// Where a repair from the log begins: the newest cursor before which everything has been queued, or the
    /// snapshot of a replay.
    cursor: Option<Arc<Cursor>>,
    /// Whether a replay is under way: what is before `cursor` need not have been queued yet.
    replaying: bool,
    /// A replay that no completed barrier covers yet.
    settling: Option<Box<Settling>>,
}

/// A replay that has been queued. The client keeps the cursor from which it was sent: with that cursor it knows
/// what may come again. It is given a new one when a barrier covers the whole replay and was sent after the client came:
/// another server may have sent the client more than this server has routed.
#[derive(Debug)]
struct Settling {
    kept: Arc<Cursor>,
    /// What this snapshot sees is in the replay, or the client had it before.
    until: Snapshot,
    /// When the client came; `None` if `until` was read after that.
    came: Option<Instant>,
}

impl Settling {
    fn is_covered_by(&self, cursor: &Cursor) -> bool {
        let is_later = self.came.is_none_or(|came| cursor.sent > Some(came));
        is_later && cursor.epoch == self.kept.epoch && cursor.snapshot.covers(&self.until)
    }
}

impl Position {
    /// The position of a connection that subscribed after this signal. A replay is under way until
    /// [`Position::end_replay`].
    pub(super) fn new(subscribed_after: Option<Sequence>) -> Self {
        Self {
            subscribed_after,
            begun_after: None,
            sequence: None,
            cursor: None,
            replaying: true,
            settling: None,
        }
    }

    /// The client gets its first frame in the history that began with this reset, perhaps while the client waited.
    pub(super) fn begin_after(&mut self, new_history: Option<Sequence>) {
        self.begun_after = new_history;
    }

    /// Decides what becomes of a signal that was routed. It counts as taken.
    #[inline]
    pub(super) fn take(&mut self, signal: &Signal, source: Source) -> Verdict {
        let Some(sequence) = signal.sequence() else {
            return Verdict::Skip;
        };
        if self.sequence >= Some(sequence) {
            return Verdict::Skip;
        }
        self.sequence = Some(sequence);
        let is_revocation = matches!(signal, Signal::Revocation(_));
        if is_revocation && source == Source::Buffer && Some(sequence) <= self.subscribed_after {
            // The identity was looked up after that revocation.
            return Verdict::Skip;
        }
        let is_of_before = Some(sequence) <= self.begun_after;
        if is_of_before && !is_revocation || self.was_replayed(signal) {
            return Verdict::Skip;
        }
        if self.settling.is_none() && !is_of_before {
            self.cursor = signal.cursor().cloned();
        }
        Verdict::Send {
            with_cursor: self.gives_cursors(),
        }
    }

    /// Whether the replay's snapshot sees this signal. A signal that was routed after the replay ends the settling.
    fn was_replayed(&mut self, signal: &Signal) -> bool {
        let Some(settling) = &self.settling else {
            return false;
        };
        if signal.xid().is_some_and(|xid| settling.until.sees(xid)) {
            return true;
        }
        let cursor = signal.cursor();
        if matches!(signal, Signal::Reset(_))
            || cursor.is_some_and(|cursor| settling.is_covered_by(cursor))
        {
            self.settling = None;
        }
        false
    }

    /// Whether the client is given the cursors of events. It is not while it keeps the cursor of before a replay.
    pub(super) fn gives_cursors(&self) -> bool {
        self.settling.is_none()
    }

    /// Everything up to this cursor has been queued. It changes nothing when the position is further.
    pub(super) fn advance(&mut self, cursor: Arc<Cursor>) {
        let is_newer = match (&self.settling, &self.cursor) {
            (Some(settling), _) => settling.is_covered_by(&cursor),
            (None, Some(known)) => cursor.snapshot.covers(&known.snapshot),
            (None, None) => true,
        };
        if is_newer {
            self.settling = None;
            self.cursor = Some(cursor);
        }
    }

    /// The client begins at this cursor, or begins anew there: what was before it concerns it no longer.
    pub(super) fn begin_at(&mut self, cursor: Option<Arc<Cursor>>) {
        self.cursor = cursor;
        self.settling = None;
    }

    /// A replay begins: a lag is being repaired.
    pub(super) fn begin_replay(&mut self) {
        self.replaying = true;
    }

    /// The replay is over: everything before the cursor has been queued.
    pub(super) fn end_replay(&mut self) {
        self.replaying = false;
    }

    /// Whether a replay is under way, so that the client gets no cursor yet.
    pub(super) fn is_replaying(&self) -> bool {
        self.replaying
    }

    /// A replay from the buffer begins at the client's own cursor, which the client keeps. The client came at this time.
    pub(super) fn resume_from_buffer(&mut self, cursor: Arc<Cursor>, came: Instant) {
        self.settling = Some(Box::new(Settling {
            until: cursor.snapshot.clone(),
            kept: Arc::clone(&cursor),
            came: Some(came),
        }));
        self.cursor = Some(cursor);
    }

    /// A replay from the log has been queued, of everything that `until` sees. The client keeps `kept`. `present` is
    /// the cursor of the read.
    pub(super) fn resume_from_log(
        &mut self,
        kept: Arc<Cursor>,
        until: Snapshot,
        present: Arc<Cursor>,
    ) {
        self.cursor = Some(present);
        self.settling = Some(Box::new(Settling {
            kept,
            until,
            came: None,
        }));
    }

    /// Whether the client keeps an older cursor until a barrier covers its replay.
    #[inline]
    pub(super) fn is_settling(&self) -> bool {
        self.settling.is_some()
    }

    /// Whether this completed barrier covers the replay that the client has been sent.
    pub(super) fn settles_at(&self, cursor: Option<&Arc<Cursor>>) -> bool {
        self.settling
            .as_ref()
            .zip(cursor)
            .is_some_and(|(settling, cursor)| settling.is_covered_by(cursor))
    }

    /// The cursor with which the client is to come back.
    pub(super) fn client_cursor(&self) -> Option<&Arc<Cursor>> {
        match &self.settling {
            Some(settling) => Some(&settling.kept),
            None => self.cursor.as_ref(),
        }
    }

    /// Where a repair from the log begins; `None` where there is no log.
    pub(super) fn repair_from(&self) -> Option<&Arc<Cursor>> {
        self.cursor.as_ref()
    }

    /// The last signal taken: a replay from the buffer goes on after it.
    pub(super) fn taken(&self) -> Option<Sequence> {
        self.sequence
    }

    /// The signal after which the replay buffer repairs a lag.
    pub(super) fn repair_after(&self) -> Option<Sequence> {
        self.sequence.max(self.subscribed_after)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{Event, Kind, Reset, ResetReason, Revocation, Xid};

    const WITH_CURSOR: Verdict = Verdict::Send { with_cursor: true };
    const WITHOUT_CURSOR: Verdict = Verdict::Send { with_cursor: false };

    /// The cursor that has seen the transactions below `next`.
    fn cursor(next: u64) -> Arc<Cursor> {
        Arc::new(format!("1-1.{next}:{next}:").parse().unwrap())
    }

    fn until(next: u64) -> Snapshot {
        cursor(next).snapshot.clone()
    }

    /// An event that the transaction with its number has written.
    fn event(sequence: u64, id: i64, cursor: &Arc<Cursor>) -> Signal {
        let (sequence, cursor) = (Sequence::new(sequence), Some(Arc::clone(cursor)));
        let xid = Xid::new(id.unsigned_abs());
        let event = Event::new(Kind::DEVICE, Some(id), xid, "{", sequence, cursor);
        Signal::Event(event)
    }

    fn revocation(sequence: u64) -> Signal {
        Signal::Revocation(Revocation {
            device_id: None,
            xid: None,
            sequence: Sequence::new(sequence),
            cursor: None,
        })
    }

    /// A connection that was sent the transactions from 10 to 19 from the log.
    fn settling() -> Position {
        let mut position = Position::new(None);
        position.resume_from_log(cursor(10), until(20), cursor(20));
        position
    }

    fn next_of(cursor: Option<&Arc<Cursor>>) -> Option<u64> {
        cursor.map(|cursor| cursor.snapshot.xmax())
    }

    #[test]
    fn a_signal_is_taken_once_and_moves_the_cursor() {
        let mut position = Position::new(None);
        assert_eq!(position.taken(), None);
        let mut take = |signal: &Signal| position.take(signal, Source::Live);
        assert_eq!(take(&Signal::Wake), Verdict::Skip);
        assert_eq!(take(&event(1, 1, &cursor(10))), WITH_CURSOR);
        assert_eq!(take(&event(1, 1, &cursor(10))), Verdict::Skip);
        assert_eq!(take(&event(3, 3, &cursor(11))), WITH_CURSOR);
        assert_eq!(take(&event(2, 2, &cursor(10))), Verdict::Skip);
        assert_eq!(position.taken(), Sequence::new(3));
        assert_eq!(next_of(position.client_cursor()), Some(11));
        assert_eq!(next_of(position.repair_from()), Some(11));
    }

    #[test]
    fn a_lag_is_repaired_from_the_subscription_on_until_something_newer_was_taken() {
        let mut position = Position::new(Sequence::new(5));
        assert_eq!(position.repair_after(), Sequence::new(5));
        position.take(&event(3, 3, &cursor(10)), Source::Buffer);
        assert_eq!(position.repair_after(), Sequence::new(5));
        position.take(&event(7, 7, &cursor(10)), Source::Live);
        assert_eq!(position.repair_after(), Sequence::new(7));
    }

    #[test]
    fn a_revocation_of_before_the_subscription_is_skipped_and_an_event_is_not() {
        let after_two = || Position::new(Sequence::new(2));
        for (sequence, source, verdict) in [
            (1, Source::Buffer, Verdict::Skip),
            (2, Source::Buffer, Verdict::Skip),
            (3, Source::Buffer, WITH_CURSOR),
            (2, Source::Live, WITH_CURSOR),
        ] {
            let taken = after_two().take(&revocation(sequence), source);
            assert_eq!(taken, verdict, "{sequence} from {source:?}");
        }
        let taken = after_two().take(&event(2, 2, &cursor(10)), Source::Buffer);
        assert_eq!(taken, WITH_CURSOR);
    }

    #[test]
    fn what_a_replay_has_carried_is_skipped_until_a_barrier_covers_the_replay() {
        let mut position = settling();
        assert!(position.is_settling() && !position.gives_cursors());
        let mut take = |signal: &Signal| position.take(signal, Source::Live);
        assert_eq!(take(&event(1, 19, &cursor(19))), Verdict::Skip);
        assert_eq!(take(&event(2, 23, &cursor(19))), WITHOUT_CURSOR);
        // Another history's cursor covers nothing of this one.
        let other = Arc::new("1-2.30:30:".parse().unwrap());
        assert_eq!(take(&event(3, 24, &other)), WITHOUT_CURSOR);
        assert_eq!(next_of(position.client_cursor()), Some(10));
        assert_eq!(next_of(position.repair_from()), Some(20));
        let mut take = |signal: &Signal| position.take(signal, Source::Live);
        assert_eq!(take(&event(4, 12, &cursor(20))), Verdict::Skip);
        assert_eq!(take(&event(5, 25, &cursor(20))), WITH_CURSOR);
        assert!(!position.is_settling() && position.gives_cursors());
        assert_eq!(next_of(position.client_cursor()), Some(20));
    }

    /// The triggers of the schema before do not notify it. The client drops the event by its id.
    #[test]
    fn an_event_whose_transaction_is_not_known_is_sent() {
        let mut position = settling();
        let event = Event::new(Kind::DEVICE, Some(1), None, "{", Sequence::new(1), None);
        let taken = position.take(&Signal::Event(event), Source::Live);
        assert_eq!(taken, WITHOUT_CURSOR);
    }

    #[test]
    fn a_reset_ends_the_settling() {
        let mut position = settling();
        let sequence = Sequence::after(None);
        let reset = Reset::new(ResetReason::NoLog, sequence, Some(cursor(15)));
        assert_eq!(
            position.take(&Signal::Reset(reset), Source::Live),
            WITH_CURSOR
        );
        assert!(!position.is_settling());
        assert_eq!(next_of(position.client_cursor()), Some(15));
    }

    #[test]
    fn a_client_that_waited_for_a_reset_gets_only_what_comes_behind_it() {
        let mut position = Position::new(None);
        let reset = |number| {
            let sequence = Sequence::new(number).unwrap();
            let reset = Reset::new(ResetReason::History, sequence, Some(cursor(15)));
            Signal::Reset(reset)
        };
        position.begin_at(Some(cursor(15)));
        position.begin_after(Sequence::new(3));
        let mut take = |signal: &Signal| position.take(signal, Source::Live);
        assert_eq!(take(&event(1, 5, &cursor(4))), Verdict::Skip);
        assert_eq!(take(&revocation(2)), WITH_CURSOR);
        assert_eq!(take(&reset(3)), Verdict::Skip);
        assert_eq!(take(&event(4, 16, &cursor(15))), WITH_CURSOR);
        assert_eq!(take(&reset(5)), WITH_CURSOR);
        assert_eq!(next_of(position.client_cursor()), Some(15));
    }

    #[test]
    fn the_client_s_cursor_goes_on_and_never_back() {
        let mut position = Position::new(None);
        for (given, known) in [(10, 10), (9, 10), (12, 12)] {
            position.advance(cursor(given));
            assert_eq!(next_of(position.client_cursor()), Some(known));
        }
        let mut position = settling();
        position.advance(cursor(19));
        assert_eq!(next_of(position.client_cursor()), Some(10));
        assert!(position.is_settling());
        assert!(!position.settles_at(Some(&cursor(19))) && !position.settles_at(None));
        assert!(position.settles_at(Some(&cursor(20))));
        position.advance(cursor(20));
        assert_eq!(next_of(position.client_cursor()), Some(20));
        assert!(!position.is_settling() && !position.settles_at(Some(&cursor(30))));
    }

    #[test]
    fn a_client_that_begins_anew_keeps_nothing_of_before() {
        let mut position = settling();
        position.begin_at(Some(cursor(8)));
        assert!(!position.is_settling());
        assert_eq!(next_of(position.client_cursor()), Some(8));
        position.begin_at(None);
        assert_eq!(next_of(position.repair_from()), None);
    }

    #[test]
    fn a_connection_replays_until_it_is_repaired() {
        let mut position = Position::new(None);
        assert!(position.is_replaying());
        position.end_replay();
        assert!(!position.is_replaying());
        position.begin_replay();
        assert!(position.is_replaying());
    }

    #[test]
    fn a_client_of_the_buffer_keeps_its_cursor_until_a_barrier_that_was_sent_later_covers_it() {
        let came = Instant::now();
        let later = came + Duration::from_nanos(1);
        let sent = |next, sent| {
            Arc::new(Cursor {
                sent,
                ..(*cursor(next)).clone()
            })
        };
        let mut position = Position::new(None);
        position.resume_from_buffer(cursor(10), came);
        assert_eq!(next_of(position.repair_from()), Some(10));
        for (source, xid, cursor, verdict) in [
            (Source::Buffer, 11, cursor(9), WITHOUT_CURSOR),
            (Source::Live, 9, cursor(9), Verdict::Skip),
            (Source::Live, 12, cursor(12), WITHOUT_CURSOR),
            (Source::Live, 13, sent(13, Some(came)), WITHOUT_CURSOR),
            (Source::Live, 14, sent(9, Some(later)), WITHOUT_CURSOR),
        ] {
            let sequence = position.taken().map_or(1, |taken| taken.get() + 1);
            let taken = position.take(&event(sequence, xid, &cursor), source);
            assert_eq!(taken, verdict, "{xid}");
            assert_eq!(next_of(position.client_cursor()), Some(10));
        }
        let taken = position.take(&event(9, 15, &sent(10, Some(later))), Source::Live);
        assert_eq!(taken, WITH_CURSOR);
        assert!(!position.is_settling());
    }
}
