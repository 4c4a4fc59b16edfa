//! The most recent events, in memory: who comes back soon, or falls behind, costs no query.
//!
//! Events are kept in the order in which they were routed, in segments between one barrier and the
//! next. A reader whose cursor covers the snapshot of barrier *n* needs nothing older than what was
//! routed after barrier *n − 1*: an event routed before that had committed before barrier *n* took its
//! snapshot. Written by the listener alone; bounded by bytes and by age, whichever is less. What it no
//! longer has, the log has.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::cursor::{Cursor, Snapshot};
use crate::log::{PAGE_BYTES_MAX, PAGE_EVENTS};
use crate::wire::{Event, EventKind};

/// An event's place here, in a list that has just grown to twice its size, and in the index by user.
const PLACE_BYTES: usize = 2 * size_of::<Arc<Event>>() + size_of::<(Uuid, u32)>();

fn held_bytes(event: &Event) -> usize {
    event.held_bytes_max() + PLACE_BYTES
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory for events, in bytes.
    pub bytes_max: usize,
    /// Age of the oldest event.
    pub age_max: Duration,
}

/// A page of one user's events, in the order of routing.
#[derive(Debug, Default)]
pub struct Found {
    /// At most [`PAGE_EVENTS`] and [`PAGE_BYTES_MAX`], like a page of the log.
    pub events: Vec<Arc<Event>>,
    /// Whether there are others after them.
    pub more: bool,
    /// How many there are in all for clients to be told, these included.
    pub total: u64,
}

impl Found {
    fn of<'a>(events: impl Iterator<Item = &'a Arc<Event>>) -> Self {
        let (mut found, mut bytes) = (Self::default(), 0);
        for event in events {
            found.total += u64::from(event.kind != EventKind::Revocation);
            found.more |= found.events.len() == PAGE_EVENTS || bytes >= PAGE_BYTES_MAX;
            if !found.more {
                bytes += event.text_bytes();
                found.events.push(Arc::clone(event));
            }
        }
        found
    }
}

/// The events of the last minutes. Cheap to clone: every clone is the same memory.
#[derive(Debug, Clone)]
pub struct Recent {
    bounds: Bounds,
    segments: Arc<RwLock<Segments>>,
}

#[derive(Debug)]
struct Segments {
    closed: VecDeque<Arc<Segment>>,
    open: Segment,
    /// Events that have been forgotten and still hold memory. The next segment takes the list's own.
    leaving: Vec<Arc<Event>>,
    bytes: usize,
    /// The sequence number of the last event pushed; the first is 1.
    last_sequence: u64,
    /// Events up to this sequence number have been forgotten.
    forgotten_through: u64,
}

/// The events between two barriers.
#[derive(Debug)]
struct Segment {
    /// The snapshot of the barrier at its beginning; `None` for the first one, and then nobody's cursor
    /// can be placed here.
    opened_by: Option<Snapshot>,
    /// The same as it was given to clients.
    given: Option<Snapshot>,
    opened_at: Instant,
    /// The sequence number of the last event before it.
    after: u64,
    /// Whether nothing of it has been forgotten.
    whole: bool,
    /// In the order of routing.
    events: Vec<Arc<Event>>,
    /// Their places by user, and each user's in that order; made when somebody asks for the first time
    /// after the segment was closed.
    by_user: OnceLock<Vec<(Uuid, u32)>>,
}

impl Segment {
    fn new(opened_by: Option<Snapshot>, after: u64) -> Self {
        Self {
            given: opened_by.as_ref().map(Snapshot::shortened),
            opened_by,
            opened_at: Instant::now(),
            after,
            whole: true,
            events: Vec::new(),
            by_user: OnceLock::new(),
        }
    }

    /// The user's events of a segment that is closed.
    fn of_user(&self, user_id: Uuid) -> impl Iterator<Item = &Arc<Event>> {
        let places = self.by_user.get_or_init(|| {
            let users = self.events.iter().map(|event| event.user_id);
            let mut places: Vec<_> = users.zip(0..).collect();
            places.sort_unstable();
            places
        });
        let from = places.partition_point(|(of, _)| *of < user_id);
        let of_user = places[from..]
            .iter()
            .take_while(move |(of, _)| *of == user_id);
        of_user.map(|(_, place)| &self.events[*place as usize])
    }
}

/// What one user may be sent, taken out of the lock: an index is not made while the router waits.
#[derive(Debug)]
struct View {
    user_id: Uuid,
    closed: Vec<Arc<Segment>>,
    /// The user's events of the segment that is open.
    open: Vec<Arc<Event>>,
}

impl View {
    fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.of_first(self.closed.len()).chain(&self.open)
    }

    /// Those of the first so many segments that are closed.
    fn of_first(&self, segments: usize) -> impl Iterator<Item = &Arc<Event>> {
        let segments = self.closed.iter().take(segments);
        segments.flat_map(|segment| segment.of_user(self.user_id))
    }
}

impl Segments {
    fn new(after: u64) -> Self {
        Self {
            closed: VecDeque::new(),
            open: Segment::new(None, after),
            leaving: Vec::new(),
            bytes: 0,
            last_sequence: after,
            forgotten_through: after,
        }
    }

    /// Makes room by one event. A segment goes at once for all who ask, but its events are let go of one
    /// by one, so that nobody waits for it, and new ones take their memory while it is warm.
    fn make_room(&mut self) {
        match self.leaving.pop() {
            Some(event) => self.bytes -= held_bytes(&event),
            None => self.forget_oldest(),
        }
    }

    fn forget_oldest(&mut self) {
        for event in self.leaving.drain(..) {
            self.bytes -= held_bytes(&event);
        }
        let events = match self.closed.pop_front().map(Arc::try_unwrap) {
            Some(Ok(segment)) => segment.events,
            // Somebody reads it just now, and lets go of it.
            Some(Err(segment)) => {
                self.bytes -= segment.events.iter().map(|e| held_bytes(e)).sum::<usize>();
                Vec::new()
            }
            None => {
                // One interval alone is over the bound: what is left of it is no whole segment.
                let mut open = Segment::new(None, self.last_sequence);
                open.whole = false;
                open.events = mem::take(&mut self.leaving);
                mem::replace(&mut self.open, open).events
            }
        };
        self.leaving = events;
        let oldest = self.closed.front().map_or(&self.open, |s| s.as_ref());
        self.forgotten_through = oldest.after;
    }

    /// Every segment, the open one last.
    fn all(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        let closed = self.closed.iter().map(AsRef::as_ref);
        closed.chain([&self.open])
    }

    /// The user's events from this segment on, without those of the open one up to this sequence number.
    fn view(&self, user_id: Uuid, from: usize, sequence: u64) -> View {
        let open = &self.open.events;
        let open = &open[open.partition_point(|event| event.sequence <= sequence)..];
        let of_user = open.iter().filter(|event| event.user_id == user_id);
        View {
            user_id,
            closed: self.closed.range(from..).cloned().collect(),
            open: of_user.cloned().collect(),
        }
    }
}

impl Recent {
    /// Nothing yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            segments: Arc::new(RwLock::new(Segments::new(0))),
        }
    }

    /// Gives the event, which is about to be routed, the next sequence number and keeps it.
    pub fn push(&self, mut event: Event) -> Arc<Event> {
        let bytes = held_bytes(&event);
        let mut segments = self.write();
        segments.last_sequence += 1;
        event.sequence = segments.last_sequence;
        let event = Arc::new(event);
        segments.open.events.push(Arc::clone(&event));
        segments.bytes += bytes;
        while segments.bytes > self.bounds.bytes_max {
            segments.make_room();
        }
        event
    }

    /// A barrier came by: everything visible in its snapshot has been pushed.
    pub fn barrier(&self, snapshot: Snapshot) {
        let mut segments = self.write();
        let mut next = Segment::new(Some(snapshot), segments.last_sequence);
        if segments.leaving.is_empty() {
            next.events = mem::take(&mut segments.leaving);
        }
        let mut closed = mem::replace(&mut segments.open, next);
        closed.events.shrink_to_fit();
        segments.closed.push_back(Arc::new(closed));
        while segments
            .closed
            .front()
            .is_some_and(|s| s.opened_at.elapsed() > self.bounds.age_max)
        {
            segments.forget_oldest();
        }
    }

    /// Forgets everything, since what was kept belongs to another history, and gives `event`, which
    /// says so, the next sequence number.
    pub fn begin_anew(&self, mut event: Event) -> Arc<Event> {
        let mut segments = self.write();
        event.sequence = segments.last_sequence + 1;
        *segments = Segments::new(event.sequence);
        Arc::new(event)
    }

    /// The first of the user's events that a client with this cursor does not have; `None` when memory
    /// cannot tell.
    ///
    /// For a cursor that was given out here it may begin with events that the client has had under the
    /// cursor before. For any other (one that was read together with state) it is exact.
    #[must_use]
    pub fn since(&self, user_id: Uuid, cursor: &Cursor) -> Option<Found> {
        let (cursor, heard) = (&cursor.snapshot, cursor.heard);
        let segments = self.read();
        let barriers: Vec<Option<&Snapshot>> = segments
            .all()
            .map(|segment| segment.opened_by.as_ref())
            .collect();
        // Of barriers that were given out in the same words, it may be the oldest.
        let given = segments
            .all()
            .position(|segment| heard && segment.given.as_ref() == Some(cursor));
        // The newest barrier that the cursor covers: what it has not seen came after the one before.
        let newest = || {
            let covers = |barrier: &Option<_>| barrier.is_some_and(|b| cursor.covers(b));
            barriers.iter().rposition(covers)
        };
        let covered = given.or_else(newest)?;
        let from = covered.checked_sub(1)?;
        if !segments.closed[from].whole {
            return None;
        }
        if given.is_some() {
            let view = segments.view(user_id, from, 0);
            drop(segments);
            return Some(Found::of(view.events()));
        }
        // The oldest barrier that covers the cursor: what came after it, the cursor has not seen.
        let unseen = barriers[covered..]
            .iter()
            .position(|barrier| barrier.is_some_and(|b| b.covers(cursor)))
            .map(|position| covered + position)?;
        let view = segments.view(user_id, from, 0);
        drop(segments);
        // Whether the cursor has seen what came in between, only the log knows.
        if view.of_first(unseen - from).next().is_some() {
            return None;
        }
        Some(Found::of(view.events()))
    }

    /// The first of the user's events after the one with this sequence number; `None` when memory does
    /// not reach back that far.
    #[must_use]
    pub fn after(&self, user_id: Uuid, sequence: u64) -> Option<Found> {
        let segments = self.read();
        if sequence < segments.forgotten_through {
            return None;
        }
        let from = segments
            .closed
            .partition_point(|segment| segment.after <= sequence);
        let view = segments.view(user_id, from.saturating_sub(1), sequence);
        drop(segments);
        let events = view.events().filter(|event| event.sequence > sequence);
        Some(Found::of(events))
    }

    /// The sequence number of the last event pushed.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.read().last_sequence
    }

    fn read(&self) -> RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Segments> {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
