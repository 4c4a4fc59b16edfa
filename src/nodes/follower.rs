//! A follower: which batches of its shards it routes, when the log has to repair, and which barriers it passes. Pure.
//!
//! The bus may lose, repeat, delay and reorder messages, and restart empty. The numbers of batches, marks and barriers
//! show that, and one answer serves all: a repair. It notes each shard's highest number, reads the log in a snapshot that
//! is taken afterwards, and goes on from the noted numbers: what was published up to there was visible, and so in the
//! read. Batches that come meanwhile are held, up to a bound.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::message::{Numbers, Run};
use crate::protocol::{Cursor, RepairCause as Cause, SHARDS, Shard, ShardSet, Snapshot};

/// What is held while the log is read, in bytes. More is dropped, and read from the log.
pub const HELD_BATCHES_BYTES_MAX: usize = 32 << 20;
/// Barriers that wait for batches at most; of more the oldest are dropped.
const BARRIERS_MAX: usize = 8;

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<B> {
    /// Its events are routed now.
    Route(B),
    /// It was routed before, is held, or comes with a repair.
    Nothing,
    /// It is of another run than the one that is followed.
    OtherRun,
    /// The node does not hold this shard.
    NotHeld,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Repair {
    None,
    /// The broker has not confirmed the subscription.
    Unconfirmed,
    Needed(Cause),
    /// The log is being read. Everything up to the number will have been routed.
    Running {
        noted: u64,
    },
}

#[derive(Debug, Hash)]
struct HeldShard<B> {
    /// The highest number of a batch that was received, or that a mark or a barrier has named.
    highest: u64,
    /// All batches up to this one have been routed. `None` until a repair has ended.
    reached: Option<u64>,
    /// The same when the last barrier was passed.
    reached_at_barrier: u64,
    repair: Repair,
    /// Batches that wait for a repair, with their bytes.
    held: BTreeMap<u64, (B, usize)>,
    /// Why the running repair is not enough.
    again: Option<Cause>,
}

/// A barrier of the leader.
#[derive(Debug, Hash)]
struct Barrier {
    cursor: Cursor,
    reached: Numbers,
    seen: Numbers,
}

/// The shards that a node holds, and how far each is. `B` is what a batch carries.
#[derive(Debug, Hash)]
pub struct Follower<B> {
    run: Run,
    shards: Vec<Option<HeldShard<B>>>,
    barriers: VecDeque<Barrier>,
    /// The snapshot of the last repair: what it sees may have been routed.
    repaired_to: Option<Snapshot>,
    /// The same when the last barrier was passed, or the first repair of this run: numbers say nothing of what was routed
    /// before the run was followed, and that repair has seen it.
    repaired_to_at_barrier: Option<Snapshot>,
    /// Whether a repair has ended since this run is followed.
    has_joined: bool,
    held_bytes: usize,
    /// The last other run that was received, with the numbers of its batches.
    other: Option<(Run, Numbers)>,
}

impl<B> HeldShard<B> {
    fn new(highest: u64, repair: Repair) -> Self {
        Self {
            highest,
            reached: None,
            reached_at_barrier: 0,
            repair,
            held: BTreeMap::new(),
            again: None,
        }
    }

    /// A batch with this number exists.
    fn exists(&mut self, number: u64) {
        self.highest = self.highest.max(number);
        if self.repair == Repair::None && self.reached < Some(number) {
            self.repair = Repair::Needed(Cause::Gap);
        }
    }

    fn need(&mut self, cause: Cause) {
        match self.repair {
            Repair::None => self.repair = Repair::Needed(cause),
            // The confirmation does not come. It only spares a repair: the numbers show what is missing.
            Repair::Unconfirmed if cause == Cause::Silent => self.repair = Repair::Needed(cause),
            Repair::Unconfirmed | Repair::Needed(_) => {}
            // What is missing may be missing from this read, too.
            Repair::Running { .. } => self.again = Some(cause),
        }
    }

    fn forget_held(&mut self) -> usize {
        let bytes = self.held.values().map(|(_, bytes)| bytes).sum();
        self.held.clear();
        bytes
    }
}

impl<B> Follower<B> {
    /// Follows this run from here on, with no shard.
    #[must_use]
    pub fn new(run: Run) -> Self {
        Self {
            run,
            shards: (0..SHARDS).map(|_| None).collect(),
            barriers: VecDeque::new(),
            repaired_to: None,
            repaired_to_at_barrier: None,
            has_joined: false,
            held_bytes: 0,
            other: None,
        }
    }

    /// The run that is followed.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The shards that were taken, whether or not they have been repaired.
    #[must_use]
    pub fn taken(&self) -> ShardSet {
        let is_taken = |shard: &Shard| self.shards[shard.index()].is_some();
        Shard::all().filter(is_taken).collect()
    }

    /// The shards whose events have been routed up to a number that is known: their users can be served.
    #[must_use]
    pub fn served(&self) -> ShardSet {
        let reached = |shard: &Shard| {
            let shard = self.shards[shard.index()].as_ref();
            shard.is_some_and(|shard| shard.reached.is_some())
        };
        Shard::all().filter(reached).collect()
    }

    /// Takes a shard: no barrier is passed without it from here on. It is repaired when the broker has confirmed the
    /// subscription.
    pub fn take(&mut self, shard: Shard) {
        self.let_go(shard);
        self.shards[shard.index()] = Some(HeldShard::new(0, Repair::Unconfirmed));
    }

    /// The broker sends the shard's messages from here on.
    pub fn confirm(&mut self, shard: Shard) {
        if let Some(held) = &mut self.shards[shard.index()] {
            match held.repair {
                Repair::Unconfirmed => held.repair = Repair::Needed(Cause::Taken),
                _ => held.need(Cause::Broken),
            }
        }
    }

    /// Forgets everything about a shard.
    pub fn let_go(&mut self, shard: Shard) {
        if let Some(mut before) = self.shards[shard.index()].take() {
            self.held_bytes -= before.forget_held();
        }
    }

    /// Messages of this shard may have been lost.
    pub fn need(&mut self, shard: Shard, cause: Cause) {
        if let Some(held) = &mut self.shards[shard.index()] {
            held.need(cause);
        }
    }

    /// Messages of all shards may have been lost.
    pub fn need_all(&mut self, cause: Cause) {
        for held in self.shards.iter_mut().flatten() {
            held.need(cause);
        }
    }

    /// The database says that this is the leader's run now. Numbers begin anew.
    pub fn follow(&mut self, run: Run) {
        if run == self.run {
            return;
        }
        let known = self.other.take().filter(|(other, _)| *other == run);
        let numbers = known.map_or([0; SHARDS], |(_, numbers)| numbers);
        for (number, shard) in numbers.into_iter().zip(&mut self.shards) {
            if let Some(shard) = shard {
                let repair = match shard.repair {
                    Repair::Unconfirmed => Repair::Unconfirmed,
                    _ => Repair::Needed(Cause::NewRun),
                };
                *shard = HeldShard::new(number, repair);
            }
        }
        (self.run, self.held_bytes, self.has_joined) = (run, 0, false);
        self.barriers.clear();
    }

    /// A batch came. One that is not whole leaves something to a read of the log.
    pub fn batch(
        &mut self,
        run: &Run,
        shard: Shard,
        number: u64,
        batch: B,
        bytes: usize,
        whole: bool,
    ) -> Verdict<B> {
        if !self.is_followed(run, shard, number) {
            return Verdict::OtherRun;
        }
        let Some(held) = &mut self.shards[shard.index()] else {
            return Verdict::NotHeld;
        };
        let is_next = held.repair == Repair::None && held.reached == number.checked_sub(1);
        if is_next && whole {
            (held.highest, held.reached) = (held.highest.max(number), Some(number));
            return Verdict::Route(batch);
        }
        if is_next {
            held.need(Cause::InLog);
        }
        held.exists(number);
        if whole && held.repair != Repair::None && held.reached < Some(number) {
            self.hold(shard, number, batch, bytes);
        }
        Verdict::Nothing
    }

    fn hold(&mut self, shard: Shard, number: u64, batch: B, bytes: usize) {
        let Some(held) = &mut self.shards[shard.index()] else {
            return;
        };
        if self.held_bytes + bytes > HELD_BATCHES_BYTES_MAX {
            self.held_bytes -= held.forget_held();
            held.need(Cause::Overflow);
            return;
        }
        self.held_bytes += bytes;
        if let Some((_, bytes)) = held.held.insert(number, (batch, bytes)) {
            self.held_bytes -= bytes;
        }
    }

    /// A mark came. Returns whether it is of the run that is followed.
    pub fn mark(&mut self, run: &Run, shard: Shard, number: u64) -> bool {
        if !self.is_followed(run, shard, number) {
            return false;
        }
        if let Some(held) = &mut self.shards[shard.index()] {
            held.exists(number);
        }
        true
    }

    /// A barrier came. Returns whether it is of the run that is followed. [`Follower::pass`] says whether it has been
    /// passed.
    pub fn barrier(
        &mut self,
        run: &Run,
        cursor: Cursor,
        reached: &Numbers,
        seen: &Numbers,
    ) -> bool {
        for shard in Shard::all() {
            if !self.mark(run, shard, reached[shard.index()]) {
                return false;
            }
        }
        if self.barriers.len() == BARRIERS_MAX {
            self.barriers.pop_front();
        }
        self.barriers.push_back(Barrier {
            cursor,
            reached: *reached,
            seen: *seen,
        });
        true
    }

    /// Something else came. Returns whether it is of the run that is followed.
    pub fn other(&mut self, run: &Run) -> bool {
        self.is_followed(run, Shard::of(uuid::Uuid::nil().into()), 0)
    }

    fn is_followed(&mut self, run: &Run, shard: Shard, number: u64) -> bool {
        if *run == self.run {
            return true;
        }
        let known = self.other.as_ref().is_some_and(|(other, _)| other == run);
        if !known {
            self.other = Some((*run, [0; SHARDS]));
        }
        if let Some((_, numbers)) = &mut self.other {
            let highest = &mut numbers[shard.index()];
            *highest = number.max(*highest);
        }
        false
    }

    /// The last other run that was received since the one that is followed began.
    #[must_use]
    pub fn other_run(&self) -> Option<&Run> {
        self.other.as_ref().map(|(run, _)| run)
    }

    /// The barrier that has been passed: all events that it sees have been routed, and it sees all events that were routed
    /// before the last one was passed.
    pub fn pass(&mut self) -> Option<Cursor> {
        let is_reached = |barrier: &Barrier| {
            let mut shards = self.shards.iter().zip(&barrier.reached);
            shards.all(|(shard, number)| {
                let reached = shard.as_ref().map(|shard| shard.reached);
                reached.is_none_or(|reached| reached >= Some(*number))
            })
        };
        let newest = self.barriers.iter().rposition(is_reached)?;
        let barrier = self.barriers.drain(..=newest).next_back()?;
        let mut shards = self.shards.iter().zip(&barrier.seen);
        let sees_batches = shards.all(|(shard, seen)| {
            let shard = shard.as_ref();
            shard.is_none_or(|shard| *seen >= shard.reached_at_barrier)
        });
        let repaired_to = self.repaired_to_at_barrier.as_ref();
        let sees_repairs = repaired_to.is_none_or(|to| barrier.cursor.snapshot.covers(to));
        if !sees_batches || !sees_repairs {
            return None;
        }
        for shard in self.shards.iter_mut().flatten() {
            shard.reached_at_barrier = shard.reached.unwrap_or_default();
        }
        self.repaired_to_at_barrier.clone_from(&self.repaired_to);
        Some(barrier.cursor)
    }

    /// The causes for which shards wait for a repair.
    pub fn needed(&self) -> impl Iterator<Item = (Shard, Cause)> {
        Shard::all().filter_map(|shard| match self.shards[shard.index()].as_ref()?.repair {
            Repair::Needed(cause) => Some((shard, cause)),
            _ => None,
        })
    }

    /// Begins a repair of the shards that need one, and returns these. The snapshot of the read is taken afterwards. There
    /// is one repair at a time.
    pub fn begin_repair(&mut self) -> ShardSet {
        let shards: ShardSet = self.needed().map(|(shard, _)| shard).collect();
        for shard in shards.iter() {
            if let Some(held) = &mut self.shards[shard.index()] {
                held.again = None;
                held.repair = Repair::Running {
                    noted: held.highest,
                };
            }
        }
        shards
    }

    /// The log is read in this snapshot from here on, and what it has of the repaired shards is routed.
    pub fn read_at(&mut self, snapshot: &Snapshot) {
        self.repaired_to = Some(snapshot.clone());
    }

    /// The log has been read up to this snapshot, and what it has of the repaired shards has been routed. Returns the held
    /// batches that are routed now, in this order.
    pub fn end_repair(&mut self, snapshot: &Snapshot) -> Vec<B> {
        self.read_at(snapshot);
        let mut ready = Vec::new();
        for held in self.shards.iter_mut().flatten() {
            let Repair::Running { noted } = held.repair else {
                continue;
            };
            if !mem::replace(&mut self.has_joined, true) {
                self.repaired_to_at_barrier = Some(snapshot.clone());
            }
            let mut reached = noted;
            while let Some(entry) = held.held.first_entry() {
                if *entry.key() > reached.saturating_add(1) {
                    break;
                }
                let (number, (batch, bytes)) = entry.remove_entry();
                self.held_bytes -= bytes;
                if number > reached {
                    reached = number;
                    ready.push(batch);
                }
            }
            held.reached = Some(reached);
            held.repair = Repair::None;
            if let Some(cause) = held.again.take() {
                held.need(cause);
            }
            held.exists(held.highest);
        }
        ready
    }

    /// The log could not be read.
    pub fn fail_repair(&mut self) {
        for held in self.shards.iter_mut().flatten() {
            if matches!(held.repair, Repair::Running { .. }) {
                held.repair = Repair::Needed(Cause::Failed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
