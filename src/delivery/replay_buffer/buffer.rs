//! The replay buffer: blocks of signals, the segments that barriers cut them into, and the snapshot from which it is
//! complete.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::block::Block;
use super::forgotten::Forgotten;
use super::found::{Found, View};
use super::segment::Segment;
use super::shards::Shards;
use crate::protocol::{Cursor, Notification, Recipient, Sequence, Shard, ShardSet, Snapshot};

/// Memory is freed one block at a time.
const BLOCK_BYTES_MAX: usize = 256 << 10;
/// The memory is divided into at least this many blocks.
const BLOCKS_MIN: usize = 16;
/// What was routed before a barrier had returned is seen by the barrier that is sent after it.
const BARRIERS_UNTIL_SEEN: u32 = 2;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory for signals, in bytes.
    pub bytes_max: usize,
    /// Age of the oldest signal.
    pub age_max: Duration,
}

impl Bounds {
    fn block_bytes(&self) -> usize {
        (self.bytes_max / BLOCKS_MIN).min(BLOCK_BYTES_MAX)
    }
}

/// The signals of the last minutes. Cheap to clone: every clone is the same buffer.
#[derive(Debug, Clone)]
pub struct ReplayBuffer {
    bounds: Bounds,
    contents: Arc<RwLock<Contents>>,
}

#[derive(Debug)]
pub(super) struct Contents {
    /// Oldest first; the last one is open. Of the first one, only the end may be left.
    segments: VecDeque<Segment>,
    /// Blocks that are full, oldest first.
    full: VecDeque<Arc<Block>>,
    /// The block that signals are written to.
    pub(super) open: Block,
    /// The memory of the full blocks.
    pub(super) full_bytes: usize,
    /// The sequence number of the last signal pushed; 0 before the first one.
    last_sequence: u64,
    /// Signals up to this sequence number have been forgotten.
    pub(super) forgotten_through: u64,
    /// The barrier from which the buffer is complete: it holds every signal that this snapshot does not see. `None` when
    /// no barrier is known to be one.
    complete_from: Option<Snapshot>,
    /// The shards that the buffer is complete for.
    shards: Shards,
    /// The transactions of forgotten signals that `complete_from` does not see.
    forgotten: Forgotten,
    /// So many barriers have to come before the buffer can be complete from one.
    barriers_to_come: u32,
    /// The sequence number of the reset that said that there is no log any more; 0 if there was none.
    log_lost: u64,
}

impl Contents {
    fn new(bounds: Bounds, after: u64, now: Instant) -> Self {
        Self {
            segments: VecDeque::from([Segment::new(None, after, now)]),
            full: VecDeque::new(),
            open: Block::of_bytes(bounds.block_bytes()),
            full_bytes: 0,
            last_sequence: after,
            forgotten_through: after,
            complete_from: None,
            shards: Shards::default(),
            forgotten: Forgotten::default(),
            barriers_to_come: 0,
            log_lost: 0,
        }
    }

    /// Begins a new block, in the memory of the oldest block where the bound leaves no other.
    #[cold]
    fn begin_block(&mut self, bounds: Bounds) {
        let full = mem::take(&mut self.open);
        self.full_bytes += full.bytes();
        self.full.push_back(Arc::new(full));
        let block_bytes = bounds.block_bytes();
        let mut spare = None;
        while self.full_bytes + block_bytes > bounds.bytes_max
            && let Some(block) = self.forget_block()
        {
            // A block that is being read is freed by its last reader.
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
        let unseen = block.unseen_by(self.complete_from.as_ref());
        self.forgotten.add(unseen);
        Some(block)
    }

    /// A signal whose transaction is not known is seen by the barriers after the next.
    fn await_barriers(&mut self) {
        self.complete_from = None;
        self.forgotten = Forgotten::default();
        self.barriers_to_come = BARRIERS_UNTIL_SEEN;
    }

    /// The buffer is complete from the oldest barrier on that has seen everything that was forgotten.
    fn complete(&mut self) {
        if self.barriers_to_come > 0 || self.complete_from.is_some() && self.forgotten.is_empty() {
            return;
        }
        let before = self.complete_from.take();
        let follows = |barrier: &&Snapshot| {
            before.as_ref().is_none_or(|before| barrier.covers(before))
                && self.forgotten.are_seen_by(barrier)
        };
        let mut barriers = self.segments.iter().filter_map(|s| s.barrier.as_ref());
        self.complete_from = barriers.find(follows).cloned();
        if self.complete_from.is_some() {
            self.forgotten = Forgotten::default();
        }
    }

    /// Forgets the segments of which no signal is left.
    fn forget_segments(&mut self) {
        self.complete();
        let through = self.forgotten_through;
        while let (Some(first), Some(next)) = (self.segments.front(), self.segments.get(1))
            && first.after < through
            && next.after <= through
        {
            self.segments.pop_front();
        }
    }

    /// Forgets everything before the oldest segment that is young enough, or open.
    fn forget_old(&mut self, age_max: Duration, now: Instant) {
        let is_old = |segment: &Segment| now.saturating_duration_since(segment.began) > age_max;
        while self.segments.len() > 1 && is_old(&self.segments[0]) {
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
        self.complete();
    }

    /// The user's signals after this sequence number that this snapshot does not see.
    fn view(&self, recipient: Recipient, after: u64, unseen_by: Option<&Snapshot>) -> View {
        let from = self
            .full
            .partition_point(|block| block.last_sequence() <= Some(after));
        let is_seen = |block: &Block| unseen_by.is_some_and(|snapshot| block.is_seen_by(snapshot));
        let full = self.full.range(from..).filter(|block| !is_seen(block));
        let segment = self
            .segments
            .partition_point(|segment| segment.after <= after)
            .saturating_sub(1);
        let segments = self.segments.range(segment..);
        View {
            after,
            unseen_by: unseen_by.cloned(),
            full: full.cloned().collect(),
            open: self.open.only_of(recipient.user),
            recipient,
            cursors: segments
                .map(|segment| (segment.after, segment.cursor.clone()))
                .collect(),
        }
    }
}

impl ReplayBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            contents: Arc::new(RwLock::new(Contents::new(bounds, 0, now))),
        }
    }

    /// Keeps the signal of a notification, which is about to be routed, and returns its sequence number.
    #[must_use]
    pub fn push(&self, notification: &Notification<'_>) -> Option<Sequence> {
        let mut contents = self.write();
        if !contents.open.has_room(notification.open_text) {
            contents.begin_block(self.bounds);
        }
        contents.last_sequence += 1;
        let sequence = contents.last_sequence;
        // One without an id is not in the log, and no cursor asks for it.
        if notification.xid.is_none() && notification.id.is_some() {
            contents.await_barriers();
        }
        contents.open.push(notification, sequence);
        Sequence::new(sequence)
    }

    /// Begins a segment at a completed barrier: everything visible to it has been pushed. Returns the cursor
    /// that clients are given with what is pushed from now on.
    #[must_use]
    pub fn begin_segment(&self, barrier: &Cursor, now: Instant) -> Option<Arc<Cursor>> {
        let mut contents = self.write();
        let last = contents.last_sequence;
        // What was pushed before there was a log belongs to no cursor. It stays for those that lag.
        if let Some(open) = contents.segments.back()
            && open.barrier.is_none()
            && open.after < last
        {
            contents.segments.push_back(Segment::new(None, last, now));
        }
        let segment = Segment::new(Some(barrier), last, now);
        let cursor = segment.cursor.clone();
        contents.segments.push_back(segment);
        if let Some(left) = contents.barriers_to_come.checked_sub(1) {
            contents.barriers_to_come = left;
            if left == 0 {
                contents.complete_from = Some(barrier.snapshot.clone());
            }
        }
        contents.forget_old(self.bounds.age_max, now);
        cursor
    }

    /// Forgets everything, since it belongs to another history, and returns the sequence number of the reset
    /// that says so.
    #[must_use]
    pub fn restart(&self, now: Instant) -> Sequence {
        let mut contents = self.write();
        let sequence = Sequence::after(Sequence::new(contents.last_sequence));
        let shards = contents.shards.of_new_history();
        *contents = Contents::new(self.bounds, sequence.get(), now);
        contents.shards = shards;
        sequence
    }

    /// The log has gone, and no cursor can be served. The signals stay for connections that lag. Returns the
    /// sequence number of the reset that says so.
    #[must_use]
    pub fn lose_log(&self) -> Sequence {
        let mut contents = self.write();
        for segment in &mut contents.segments {
            (segment.barrier, segment.cursor) = (None, None);
        }
        (contents.complete_from, contents.forgotten) = (None, Forgotten::default());
        let sequence = Sequence::after(Sequence::new(contents.last_sequence));
        (contents.last_sequence, contents.log_lost) = (sequence.get(), sequence.get());
        sequence
    }

    /// The user's signals that a client with this cursor has not seen, in the order of routing; `None` when it has to be read
    /// from the log.
    #[must_use]
    pub fn since(&self, recipient: impl Into<Recipient>, cursor: &Snapshot) -> Option<Found> {
        let recipient = recipient.into();
        let contents = self.read();
        let newest = contents.segments.back()?.barrier.as_ref()?;
        let complete_from = contents.complete_from.as_ref()?;
        // A cursor that no barrier covers may be of a future that has not been.
        let shard = Shard::of(recipient.user);
        if !cursor.covers(complete_from)
            || !newest.covers(cursor)
            || !contents.shards.serve(shard, cursor)
        {
            return None;
        }
        let view = contents.view(recipient, 0, Some(cursor));
        drop(contents);
        Some(view.found())
    }

    /// Those of them after the one with this sequence number; `None` when the buffer does not reach back that far.
    #[must_use]
    pub fn since_after(
        &self,
        recipient: impl Into<Recipient>,
        cursor: Option<&Snapshot>,
        sequence: Option<Sequence>,
    ) -> Option<Found> {
        let sequence = sequence.map_or(0, Sequence::get);
        let contents = self.read();
        if sequence < contents.forgotten_through {
            return None;
        }
        let view = contents.view(recipient.into(), sequence, cursor);
        let has_lost_log = sequence < contents.log_lost;
        drop(contents);
        Some(Found {
            has_lost_log,
            ..view.found()
        })
    }

    /// The user's signals after the one with this sequence number; `None` when the buffer does not reach back
    /// that far.
    #[must_use]
    pub fn after(
        &self,
        recipient: impl Into<Recipient>,
        sequence: Option<Sequence>,
    ) -> Option<Found> {
        self.since_after(recipient, None, sequence)
    }

    /// Signals of these shards no longer come.
    pub(in crate::delivery) fn lose_shards(&self, shards: ShardSet) {
        self.write().shards.lose(shards);
    }

    /// Every signal of these shards is here that the barrier does not see.
    pub(in crate::delivery) fn complete_shards(&self, shards: ShardSet, barrier: &Snapshot) {
        self.write().shards.complete(shards, barrier);
    }

    /// The shards whose cursors cannot be served.
    pub(in crate::delivery) fn incomplete_shards(&self) -> ShardSet {
        self.read().shards.incomplete()
    }

    /// The sequence number of the last signal pushed.
    #[must_use]
    pub fn last_sequence(&self) -> Option<Sequence> {
        Sequence::new(self.read().last_sequence)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
