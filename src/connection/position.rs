//! A connection's position in the stream: which signals the client has been sent, and which cursor it may keep.
//! Pure: no I/O, no clock.
//!
//! Three rules make it safe. A signal with a sequence number that was taken is not taken again. An event that a
//! replay from the log has carried is known by its id until a barrier covers the replay. And the client's cursor
//! moves only to a cursor before which everything has been queued to this socket.

use std::collections::HashSet;
use std::sync::Arc;

use crate::protocol::{Cursor, Sequence, Signal, Snapshot};

/// Ids of a replay that are remembered; of a longer replay, the newest.
pub(crate) const REPLAYED_MAX: usize = 4_096;

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
/// what may come again. It is given a new one when a barrier covers the whole replay.
#[derive(Debug)]
struct Settling {
    /// The cursor that the client keeps.
    kept: Arc<Cursor>,
    /// The snapshot of the read. A signal whose cursor covers it is new.
    until: Snapshot,
    /// The events that came from the log, and may come again from the subscription.
    ids: HashSet<i64>,
}

impl Settling {
    fn is_covered_by(&self, cursor: &Cursor) -> bool {
        cursor.epoch == self.kept.epoch && cursor.snapshot.covers(&self.until)
    }
}

impl Position {
    /// The position of a connection that subscribed after this signal. A replay is under way until
    /// [`Position::end_replay`].
    pub(super) fn new(subscribed_after: Option<Sequence>) -> Self {
        Self {
            subscribed_after,
            sequence: None,
            cursor: None,
            replaying: true,
            settling: None,
        }
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
        if self.was_replayed(signal) {
            return Verdict::Skip;
        }
        if self.settling.is_none() {
            self.cursor = signal.cursor().cloned();
        }
        Verdict::Send {
            with_cursor: self.gives_cursors(),
        }
    }

    /// Whether a replay from the log has carried this event. A signal that was routed after the replay ends the
    /// settling.
    fn was_replayed(&mut self, signal: &Signal) -> bool {
        let Some(settling) = &self.settling else {
            return false;
        };
        if let Signal::Event(event) = signal
            && event.id.is_some_and(|id| settling.ids.contains(&id))
        {
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

    /// Whether a replay is under way, so that the client cannot be told where it is.
    pub(super) fn is_replaying(&self) -> bool {
        self.replaying
    }

    /// A replay from the buffer begins at the client's own cursor, which the client keeps until a barrier covers
    /// what the subscription brings.
    pub(super) fn resume_from_buffer(&mut self, cursor: Arc<Cursor>) {
        self.settling = Some(Box::new(Settling {
            until: cursor.snapshot.clone(),
            kept: Arc::clone(&cursor),
            ids: HashSet::new(),
        }));
        self.cursor = Some(cursor);
    }

    /// A replay from the log has been queued. `present` is the cursor of its read.
    pub(super) fn resume_from_log(&mut self, mut replay: Replayed, present: Arc<Cursor>) {
        self.cursor = Some(present);
        // The subscription may also bring what an earlier replay has carried, if that has not settled.
        if let Some(earlier) = self.settling.take()
            && earlier.ids.len() + replay.ids.len() <= REPLAYED_MAX
        {
            replay.ids.extend(earlier.ids);
        }
        self.settling = Some(Box::new(Settling {
            kept: replay.kept,
            until: replay.until,
            ids: replay.ids,
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

/// A replay from the log while it is being sent, page by page.
#[derive(Debug)]
pub(super) struct Replayed {
    /// The cursor that the client keeps meanwhile.
    kept: Arc<Cursor>,
    /// The snapshot of the first page: all pages end there.
    until: Snapshot,
    /// The ids of its events; of a replay that is longer than the bound, the newest.
    ids: HashSet<i64>,
}

impl Replayed {
    /// A replay that was read in this snapshot.
    pub(super) fn new(kept: Arc<Cursor>, until: Snapshot) -> Self {
        Self {
            kept,
            until,
            ids: HashSet::new(),
        }
    }

    /// The snapshot in which later pages end.
    pub(super) fn until(&self) -> &Snapshot {
        &self.until
    }

    /// The cursor that the client keeps while the replay is sent.
    pub(super) fn kept(&self) -> &Arc<Cursor> {
        &self.kept
    }

    /// Another page of at most this many events follows. Room for their ids is made by forgetting older ones.
    pub(super) fn begin_page(&mut self, events: usize) {
        if self.ids.len() + events > REPLAYED_MAX {
            self.ids.clear();
        }
    }

    /// This event has been queued.
    pub(super) fn add(&mut self, id: Option<i64>) {
        self.ids.extend(id);
    }
}
