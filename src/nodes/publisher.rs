//! What a leader publishes: it collects each shard's events into numbered batches, and knows the numbers that marks and
//! barriers carry. Pure.
//!
//! A batch keeps its number whether or not the bus takes it: a batch that is lost shows as a gap.

use super::message::{self, BATCH_BYTES, Envelope, Numbers, Run, VERSION_OLDEST};
use crate::protocol::{Cursor, Notification, SHARDS, Shard, ShardSet};

/// The subject that a message is published on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The subject of a shard.
    Shard(Shard),
    /// The subject of barriers, which every node is subscribed to.
    Control,
}

/// The batches of one run.
#[derive(Debug)]
pub struct Publisher {
    envelope: Envelope,
    /// The items of each shard's open batch.
    open: Vec<Vec<u8>>,
    /// The shards whose batch has items.
    unsent: ShardSet,
    /// The number of each shard's last batch.
    sent: Numbers,
    /// The same at the last barrier. The next barrier sees everything up to there.
    at_barrier: Numbers,
}

/// The memory of the open batches, in bytes.
pub const OPEN_BATCHES_BYTES_MAX: usize = SHARDS * 2 * message::MESSAGE_BYTES_MAX;

impl Publisher {
    /// Nothing has been published in this run. Messages are of the oldest format, which every node reads.
    #[must_use]
    pub fn new(run: Run) -> Self {
        Self {
            envelope: Envelope {
                version: VERSION_OLDEST,
                run,
            },
            open: vec![Vec::new(); SHARDS],
            unsent: ShardSet::NONE,
            sent: [0; SHARDS],
            at_barrier: [0; SHARDS],
        }
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.envelope.run
    }

    /// Whether the run goes on at this cursor: a run has one history and timeline.
    #[must_use]
    pub fn goes_on_at(&self, cursor: Option<&Cursor>) -> bool {
        cursor.is_some_and(|cursor| cursor.epoch == self.run().epoch())
    }

    /// Writes this format from the next message on. Returns whether it has changed.
    pub fn set_version(&mut self, version: u8) -> bool {
        std::mem::replace(&mut self.envelope.version, version) != version
    }

    /// A notification was routed. Publishes the batch that it makes full.
    pub fn event(
        &mut self,
        notification: &Notification<'_>,
        publish: impl FnMut(Destination, Vec<u8>),
    ) {
        let shard = Shard::of(notification.user);
        message::append(&mut self.open[shard.index()], notification);
        self.appended(shard, publish);
    }

    /// A row of the log for all users was read: each node reads it there.
    pub fn row_for_all(&mut self, mut publish: impl FnMut(Destination, Vec<u8>)) {
        for shard in Shard::all() {
            message::append_in_log(&mut self.open[shard.index()]);
            self.appended(shard, &mut publish);
        }
    }

    fn appended(&mut self, shard: Shard, publish: impl FnMut(Destination, Vec<u8>)) {
        self.unsent = self.unsent.with(shard);
        if self.open[shard.index()].len() >= BATCH_BYTES {
            self.end_batch(shard, publish);
        }
    }

    /// The router has nothing ready: publishes what there is.
    pub fn flush(&mut self, mut publish: impl FnMut(Destination, Vec<u8>)) {
        for shard in self.unsent.iter() {
            self.end_batch(shard, &mut publish);
        }
    }

    fn end_batch(&mut self, shard: Shard, mut publish: impl FnMut(Destination, Vec<u8>)) {
        let items = &mut self.open[shard.index()];
        let sequence = &mut self.sent[shard.index()];
        *sequence += 1;
        let batch = message::batch(&self.envelope, shard, *sequence, items);
        items.clear();
        // A long event need not be kept room for.
        items.shrink_to(BATCH_BYTES);
        self.unsent = self.unsent.without(shard);
        publish(Destination::Shard(shard), batch);
    }

    /// Publishes the proof that the leader lives, with the number of each shard's last batch.
    pub fn marks(&self, mut publish: impl FnMut(Destination, Vec<u8>)) {
        for shard in Shard::all() {
            let mark = message::mark(&self.envelope, shard, self.sent[shard.index()]);
            publish(Destination::Shard(shard), mark);
        }
        publish(Destination::Control, message::alive(&self.envelope));
    }

    /// The router has completed this barrier: it sees everything that was routed before the one before was completed.
    pub fn barrier(&mut self, barrier: &Cursor, mut publish: impl FnMut(Destination, Vec<u8>)) {
        self.flush(&mut publish);
        let snapshot = barrier.snapshot.to_string();
        let message = message::barrier(&self.envelope, &snapshot, &self.sent, &self.at_barrier);
        self.at_barrier = self.sent;
        publish(Destination::Control, message);
    }

    /// The sources of the log may have changed.
    pub fn sources(&self, mut publish: impl FnMut(Destination, Vec<u8>)) {
        publish(Destination::Control, message::sources(&self.envelope));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::message::{Message, VERSION, read};
    use super::*;
    use crate::protocol::{Kind, Subject, Xid};

    const RUN: Run = Run {
        history: 1,
        timeline: 1,
        number: 1,
    };

    fn event(user: u128, text: &str) -> Notification<'_> {
        let user = Uuid::from_u128(user).into();
        let subject = Subject::Event(Kind::MESSAGE);
        Notification::published(subject, user, Some(1), Xid::new(1), text)
    }

    /// The shards and numbers of the batches that were published.
    fn batches(published: &[(Destination, Vec<u8>)]) -> Vec<(u8, u64)> {
        let read = |(_, bytes): &(Destination, Vec<u8>)| match read(bytes, VERSION).unwrap().1 {
            Message::Batch {
                shard, sequence, ..
            } => Some((shard.number(), sequence)),
            _ => None,
        };
        published.iter().filter_map(read).collect()
    }

    #[test]
    fn a_batch_ends_when_it_is_full_or_nothing_is_ready() {
        let mut publisher = Publisher::new(RUN);
        let mut messages = Vec::new();
        let mut publish = |to, bytes| messages.push((to, bytes));
        let text = "x".repeat(1_000);
        let shard = Shard::of(Uuid::from_u128(7).into()).number();
        for _ in 0..20 {
            publisher.event(&event(7, &text), &mut publish);
        }
        publisher.flush(&mut publish);
        publisher.flush(&mut publish);
        assert_eq!(batches(&messages), [(shard, 1), (shard, 2)]);
        let full = messages[0].1.len();
        assert!((BATCH_BYTES..BATCH_BYTES + 2_000).contains(&full), "{full}");
        assert_eq!(
            messages[0].0,
            Destination::Shard(Shard::new(shard).unwrap())
        );
    }

    #[test]
    fn a_barrier_follows_the_batches_before_it_and_sees_those_before_the_barrier_before() {
        let mut publisher = Publisher::new(RUN);
        let mut messages = Vec::new();
        let cursor: Cursor = "1-1.9:9:".parse().unwrap();
        let shard = Shard::of(Uuid::from_u128(7).into()).index();
        for _ in 0..2 {
            let mut publish = |to, bytes| messages.push((to, bytes));
            publisher.event(&event(7, "{"), &mut publish);
            publisher.barrier(&cursor, &mut publish);
        }
        assert_eq!(batches(&messages).len(), 2);
        let (_, last) = &messages[3];
        let (
            _,
            Message::Barrier {
                snapshot,
                reached,
                seen,
            },
        ) = read(last, VERSION).unwrap()
        else {
            panic!("no barrier");
        };
        assert_eq!((snapshot, reached[shard], seen[shard]), ("9:9:", 2, 1));
    }

    #[test]
    fn a_row_for_all_users_is_in_a_batch_of_every_shard_and_a_mark_has_its_number() {
        let mut publisher = Publisher::new(RUN);
        let mut messages = Vec::new();
        let mut publish = |to, bytes| messages.push((to, bytes));
        publisher.row_for_all(&mut publish);
        publisher.flush(&mut publish);
        publisher.marks(&mut publish);
        assert!(batches(&messages).into_iter().eq((0..64).map(|n| (n, 1))));
        let marks = &messages[SHARDS..];
        assert_eq!(marks.len(), SHARDS + 1);
        for (to, bytes) in &marks[..SHARDS] {
            let (_, Message::Mark { shard, sequence: 1 }) = read(bytes, VERSION).unwrap() else {
                panic!("no mark");
            };
            assert_eq!(*to, Destination::Shard(shard));
        }
    }
}
