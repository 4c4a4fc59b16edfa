//! The most recent events, in memory: who comes back soon, or falls behind, costs no query.
//!
//! Events are kept in the order in which they were routed: their texts, in blocks, since most of them
//! nobody will ask for. A segment is what was routed between one barrier and the next. A reader whose
//! cursor covers the snapshot of barrier *n* needs nothing older than what was routed after barrier
//! *n − 1*: an event routed before that had committed before barrier *n* took its snapshot. Written by the
//! listener alone; bounded by bytes and by age, whichever is less. What it no longer has, the log has.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::block::Block;
use crate::protocol::{Cursor, Event, EventKind, Notification, Snapshot};
use crate::store::{PAGE_BYTES_MAX, PAGE_EVENTS};

/// Memory is let go of a block at a time.
const BLOCK_BYTES_MAX: usize = 256 << 10;
/// And is divided into as many blocks at least.
const BLOCKS_MIN: usize = 16;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory for events, in bytes.
    pub bytes_max: usize,
    /// Age of the oldest event.
    pub age_max: Duration,
}

impl Bounds {
    fn block_bytes(&self) -> usize {
        (self.bytes_max / BLOCKS_MIN).min(BLOCK_BYTES_MAX)
    }
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

/// The events of the last minutes. Cheap to clone: every clone is the same memory.
#[derive(Debug, Clone)]
pub struct Recent {
    bounds: Bounds,
    memory: Arc<RwLock<Memory>>,
}

#[derive(Debug)]
struct Memory {
    /// Oldest first; the last is the one that is open. Of the first, only the end may be left.
    segments: VecDeque<Segment>,
    /// Blocks that are full, oldest first.
    full: VecDeque<Arc<Block>>,
    /// Where events go.
    open: Block,
    /// What the full blocks take.
    full_bytes: usize,
    /// The sequence number of the last event pushed; the first is 1.
    last_sequence: u64,
    /// Events up to this sequence number have been forgotten.
    forgotten_through: u64,
}

/// What was routed from one barrier to the next.
#[derive(Debug)]
struct Segment {
    /// The snapshot of the barrier at its beginning; `None` for the first one, and then nobody's cursor
    /// can be placed here.
    opened_by: Option<Snapshot>,
    /// The barrier as it was given to clients.
    passed: Option<Arc<Cursor>>,
    opened_at: Instant,
    /// The sequence number of the last event before it.
    after: u64,
}

impl Segment {
    fn new(opened_by: Option<&Cursor>, after: u64) -> Self {
        Self {
            opened_by: opened_by.map(|cursor| cursor.snapshot.clone()),
            passed: opened_by.map(|cursor| Arc::new(cursor.heard())),
            opened_at: Instant::now(),
            after,
        }
    }

    fn was_given_as(&self, snapshot: &Snapshot) -> bool {
        self.passed
            .as_ref()
            .is_some_and(|cursor| cursor.snapshot == *snapshot)
    }
}

/// What one user may be sent, taken out of the lock: nothing is sorted or read while the router waits.
#[derive(Debug)]
struct View {
    user_id: Uuid,
    /// Events up to this sequence number are none of it.
    after: u64,
    full: Vec<Arc<Block>>,
    /// The user's events of the block that is open.
    open: Block,
    /// The segments: after which sequence number, and which cursor its events come with.
    passed: Vec<(u64, Option<Arc<Cursor>>)>,
}

impl View {
    /// Its events: a block, and a number in it.
    fn events(&self) -> impl Iterator<Item = (&Block, usize)> {
        let full = self.full.iter().flat_map(|block| {
            let numbers = block.of_user(self.user_id);
            numbers.map(|number| (&**block, number))
        });
        full.chain(self.open.numbers().map(|number| (&self.open, number)))
            .filter(|(block, number)| block.place(*number).sequence > self.after)
    }

    fn first_sequence(&self) -> Option<u64> {
        self.events()
            .next()
            .map(|(block, number)| block.place(number).sequence)
    }

    fn found(&self) -> Found {
        let (mut found, mut bytes) = (Found::default(), 0);
        for (block, number) in self.events() {
            let place = block.place(number);
            found.total += u64::from(place.kind != EventKind::Revocation);
            found.more |= found.events.len() == PAGE_EVENTS || bytes >= PAGE_BYTES_MAX;
            if !found.more {
                let text = block.text(number);
                bytes += text.len();
                found.events.push(self.event(text, place.sequence));
            }
        }
        found
    }

    fn event(&self, text: &str, sequence: u64) -> Arc<Event> {
        let segments = self.passed.partition_point(|(after, _)| *after < sequence);
        let segment = segments.checked_sub(1).map(|number| &self.passed[number]);
        let passed = segment.and_then(|(_, passed)| passed.clone());
        match Notification::parse(text) {
            Ok(told) => Arc::new(Event::new(told, sequence, passed)),
            Err(error) => unreachable!("what was routed is no event: {error}"),
        }
    }
}

impl Memory {
    fn new(bounds: Bounds, after: u64) -> Self {
        Self {
            segments: VecDeque::from([Segment::new(None, after)]),
            full: VecDeque::new(),
            open: Block::of_bytes(bounds.block_bytes()),
            full_bytes: 0,
            last_sequence: after,
            forgotten_through: after,
        }
    }

    /// Begins a new block, in the memory of the oldest where there is no other.
    #[cold]
    fn turn_block(&mut self, bounds: Bounds) {
        let full = mem::take(&mut self.open);
        self.full_bytes += full.bytes();
        self.full.push_back(Arc::new(full));
        let block_bytes = bounds.block_bytes();
        let mut spare = None;
        while self.full_bytes + block_bytes > bounds.bytes_max
            && let Some(block) = self.forget_block()
        {
            // One that is read just now goes with its last reader.
            spare = Arc::into_inner(block).filter(|block| block.bytes() <= block_bytes);
        }
        self.open = match spare {
            Some(block) => block.emptied(),
            None => Block::of_bytes(block_bytes),
        };
        self.forget_segments();
    }

    fn forget_block(&mut self) -> Option<Arc<Block>> {
        let block = self.full.pop_front()?;
        self.full_bytes -= block.bytes();
        let last = block.last_sequence().unwrap_or_default();
        self.forgotten_through = self.forgotten_through.max(last);
        Some(block)
    }

    /// Those that had events of which none is left.
    fn forget_segments(&mut self) {
        let through = self.forgotten_through;
        while let (Some(first), Some(next)) = (self.segments.front(), self.segments.get(1))
            && first.after < through
            && next.after <= through
        {
            self.segments.pop_front();
        }
    }

    /// Everything before the oldest segment that is young enough, or open.
    fn forget_old(&mut self, age_max: Duration) {
        while self.segments.len() > 1 && self.segments[0].opened_at.elapsed() > age_max {
            self.segments.pop_front();
        }
        let before = self.segments[0].after;
        self.forgotten_through = self.forgotten_through.max(before);
        while self
            .full
            .front()
            .is_some_and(|block| block.last_sequence() <= Some(before))
        {
            self.forget_block();
        }
    }

    /// The user's events after this sequence number.
    fn view(&self, user_id: Uuid, after: u64) -> View {
        let full = self
            .full
            .partition_point(|block| block.last_sequence() <= Some(after));
        let segment = self
            .segments
            .partition_point(|segment| segment.after <= after)
            .saturating_sub(1);
        let segments = self.segments.range(segment..);
        View {
            user_id,
            after,
            full: self.full.range(full..).cloned().collect(),
            open: self.open.only_of(user_id),
            passed: segments
                .map(|segment| (segment.after, segment.passed.clone()))
                .collect(),
        }
    }
}

impl Recent {
    /// Nothing yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            memory: Arc::new(RwLock::new(Memory::new(bounds, 0))),
        }
    }

    /// Keeps the event, which is about to be routed, and says its sequence number.
    #[must_use]
    pub fn push(&self, told: &Notification<'_>) -> u64 {
        let mut memory = self.write();
        if !memory.open.has_room(told.text) {
            memory.turn_block(self.bounds);
        }
        memory.last_sequence += 1;
        let sequence = memory.last_sequence;
        memory.open.push(told, sequence);
        sequence
    }

    /// A barrier came by: everything visible in its snapshot has been pushed. Returns it as clients are
    /// given it with what is pushed from now on.
    #[must_use]
    pub fn barrier(&self, barrier: &Cursor) -> Option<Arc<Cursor>> {
        let mut memory = self.write();
        let segment = Segment::new(Some(barrier), memory.last_sequence);
        let passed = segment.passed.clone();
        memory.segments.push_back(segment);
        memory.forget_old(self.bounds.age_max);
        passed
    }

    /// Forgets everything, since what was kept belongs to another history, and gives `event`, which
    /// says so, the next sequence number.
    pub fn begin_anew(&self, mut event: Event) -> Arc<Event> {
        let mut memory = self.write();
        event.sequence = memory.last_sequence + 1;
        *memory = Memory::new(self.bounds, event.sequence);
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
        let memory = self.read();
        let segments = &memory.segments;
        // Of barriers that were given out in the same words, it may be the oldest.
        let given = segments
            .iter()
            .position(|segment| heard && segment.was_given_as(cursor));
        // The newest barrier that the cursor covers: what it has not seen came after the one before.
        let newest = || {
            let covers = |barrier: &Snapshot| cursor.covers(barrier);
            let mut barriers = segments.iter().map(|segment| &segment.opened_by);
            barriers.rposition(|barrier| barrier.as_ref().is_some_and(covers))
        };
        let covered = given.or_else(newest)?;
        let from = segments[covered.checked_sub(1)?].after;
        if from < memory.forgotten_through {
            return None;
        }
        // The oldest barrier that covers the cursor: what came after it, the cursor has not seen.
        let unseen = || {
            let barriers = segments.range(covered..);
            let mut covering = barriers.filter(|segment| {
                let barrier = segment.opened_by.as_ref();
                barrier.is_some_and(|barrier| barrier.covers(cursor))
            });
            covering.next().map(|segment| segment.after)
        };
        let unseen = if given.is_some() { from } else { unseen()? };
        let view = memory.view(user_id, from);
        drop(memory);
        // Whether the cursor has seen what came in between, only the log knows.
        if view.first_sequence().is_some_and(|first| first <= unseen) {
            return None;
        }
        Some(view.found())
    }

    /// The first of the user's events after the one with this sequence number; `None` when memory does
    /// not reach back that far.
    #[must_use]
    pub fn after(&self, user_id: Uuid, sequence: u64) -> Option<Found> {
        let memory = self.read();
        if sequence < memory.forgotten_through {
            return None;
        }
        let view = memory.view(user_id, sequence);
        drop(memory);
        Some(view.found())
    }

    /// The sequence number of the last event pushed.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.read().last_sequence
    }

    fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "replay_buffer_tests.rs"]
mod tests;
