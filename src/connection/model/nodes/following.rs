//! The follower's end of the bus: what drives the production [`Follower`] and intake as the node's loop does.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::super::database::{Database, Row};
use super::bus::Bytes;
use super::server::Server;
use crate::nodes::{Follower, Message, Published, Run, VERSION, Verdict, read};
use crate::protocol::{Cursor, RepairCause, Shard, ShardSet, Snapshot};
use crate::store::{Chunk, Reading};

/// A read of the log that is under way.
#[derive(Debug)]
struct Repair {
    from: Snapshot,
    shards: ShardSet,
    /// What the read has found. It is on its way until `is_answered`.
    found: Option<(Reading, VecDeque<Row>)>,
    is_answered: bool,
}

/// A node that follows.
pub(super) struct Following {
    pub(super) follower: Follower<Bytes>,
    repair: Option<Repair>,
    /// Shards whose subscription the broker has not confirmed.
    unconfirmed: ShardSet,
}

impl Hash for Following {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.follower.hash(state);
        let unconfirmed: Vec<_> = self.unconfirmed.iter().collect();
        unconfirmed.hash(state);
        let Some(repair) = &self.repair else {
            return;
        };
        let shards: Vec<_> = repair.shards.iter().collect();
        (&repair.from, shards, repair.is_answered).hash(state);
        if let Some((reading, rows)) = &repair.found {
            let rows: Vec<_> = rows.iter().map(|row| row.id).collect();
            (reading.cursor.to_string(), reading.retained, rows).hash(state);
        }
    }
}

/// A step of the read that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ReadStep {
    Begin,
    /// The database takes the snapshot of the read.
    Snapshot,
    /// The answer comes.
    Answer,
    Row,
    End,
}

/// Whether the node goes on following.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    On,
    /// The log has another history or timeline.
    ToAnotherHistory,
}

impl Following {
    /// Follows this run with the shards that are wanted.
    pub(super) fn new(run: Run, server: &mut Server) -> Self {
        server.trace("follow");
        server.intake.stop_reading(server.now);
        let wanted = server.hub.interest().wanted();
        server.router().shards().lose(ShardSet::ALL.minus(wanted));
        server.router().serve(ShardSet::NONE);
        let mut following = Self {
            follower: Follower::new(run),
            repair: None,
            unconfirmed: ShardSet::NONE,
        };
        following.take_wanted(server);
        following
    }

    /// Takes the shards that have got users.
    pub(super) fn take_wanted(&mut self, server: &Server) {
        let wanted = server.hub.interest().wanted();
        for shard in wanted.minus(self.follower.taken()).iter() {
            self.follower.take(shard);
            self.unconfirmed = self.unconfirmed.with(shard);
        }
    }

    pub(super) fn unconfirmed(&self) -> ShardSet {
        self.unconfirmed
    }

    pub(super) fn confirm(&mut self, shard: Shard) {
        self.unconfirmed = self.unconfirmed.without(shard);
        self.follower.confirm(shard);
    }

    /// The shards that nobody needs.
    pub(super) fn unwanted(&self, server: &Server) -> ShardSet {
        let wanted = server.hub.interest().wanted();
        self.follower.taken().minus(wanted)
    }

    pub(super) fn let_go(&mut self, shard: Shard, server: &mut Server) {
        server.trace(("let go", shard));
        self.follower.let_go(shard);
        self.unconfirmed = self.unconfirmed.without(shard);
        server.router().serve(self.follower.served());
        server.router().shards().lose(ShardSet::NONE.with(shard));
    }

    pub(super) fn message(&mut self, bytes: &Bytes, server: &mut Server) {
        let (run, message) = read(bytes.get(), VERSION).unwrap();
        match message {
            Message::Batch {
                shard,
                sequence,
                items,
            } => {
                let length = bytes.get().len();
                let whole = items.are_whole();
                let batch = bytes.clone();
                let follower = &mut self.follower;
                let verdict = follower.batch(&run, shard, sequence, batch, length, whole);
                if let Verdict::Route(batch) = verdict {
                    route(&batch, server);
                }
            }
            Message::Mark { shard, sequence } => {
                self.follower.mark(&run, shard, sequence);
            }
            Message::Barrier {
                snapshot,
                reached,
                seen,
            } => {
                let barrier = Cursor {
                    epoch: run.epoch(),
                    snapshot: snapshot.parse().unwrap(),
                    sent: None,
                };
                self.follower.barrier(&run, barrier, &reached, &seen);
            }
            Message::Alive | Message::Sources => {
                self.follower.other(&run);
            }
        }
    }

    /// Passes the barriers that can be passed.
    pub(super) fn pass(&mut self, server: &mut Server) {
        while let Some(barrier) = self.follower.pass() {
            server.tick_barrier(&barrier);
            if server.intake.pass(barrier, server.now) {
                self.follower.need_all(RepairCause::InLog);
            }
        }
    }

    /// A look has found who leads and how far the database is.
    pub(super) fn found(&mut self, number: u64, present: Cursor, server: &mut Server) -> Goes {
        server.trace(("look", present.to_string()));
        if !server.intake.is_of_history(&present) {
            return Goes::ToAnotherHistory;
        }
        let run = Run {
            number,
            ..*self.follower.run()
        };
        self.follower.follow(run);
        server.intake.looked(server.now, present.snapshot);
        Goes::On
    }

    /// What can be done next for a repair.
    pub(super) fn next_read(&self) -> Option<ReadStep> {
        match &self.repair {
            None if self.follower.needed().next().is_some() => Some(ReadStep::Begin),
            None => None,
            Some(repair) => Some(match &repair.found {
                None => ReadStep::Snapshot,
                Some(_) if !repair.is_answered => ReadStep::Answer,
                Some((_, rows)) if rows.is_empty() => ReadStep::End,
                Some(_) => ReadStep::Row,
            }),
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.repair.is_some()
    }

    pub(super) fn read(
        &mut self,
        step: ReadStep,
        server: &mut Server,
        database: &Database,
    ) -> Goes {
        match step {
            ReadStep::Begin => {
                self.repair = Some(Repair {
                    from: server.durable(),
                    shards: self.follower.begin_repair(),
                    found: None,
                    is_answered: false,
                });
            }
            ReadStep::Snapshot => {
                let repair = self.repair.as_mut().unwrap();
                let reading = database.reading(&repair.from);
                let rows = database.read(&repair.from, &reading.cursor.snapshot);
                repair.found = Some((reading, rows.into()));
            }
            ReadStep::Answer => {
                let repair = self.repair.as_mut().unwrap();
                let (reading, _) = repair.found.as_ref().unwrap();
                if !server.intake.is_of_history(&reading.cursor) {
                    return Goes::ToAnotherHistory;
                }
                self.follower.read_at(&reading.cursor.snapshot);
                repair.is_answered = true;
                self.route_row(server);
            }
            ReadStep::Row => self.route_row(server),
            ReadStep::End => self.end_repair(server),
        }
        Goes::On
    }

    /// A chunk of the read has one row at most.
    fn route_row(&mut self, server: &mut Server) {
        let repair = self.repair.as_mut().unwrap();
        let (reading, rows) = repair.found.as_mut().unwrap();
        let chunk = Chunk {
            reading: reading.clone(),
            rows: rows.pop_front().iter().map(Row::in_log).collect(),
        };
        server.trace_read("repair", &chunk);
        server.intake.repair(&chunk, repair.shards);
    }

    fn end_repair(&mut self, server: &mut Server) {
        let Repair { shards, found, .. } = self.repair.take().unwrap();
        let (Reading { cursor, .. }, _) = found.unwrap();
        let snapshot = cursor.snapshot.clone();
        server.trace(("repaired", snapshot.to_string()));
        let before = self.follower.served();
        let is_whole = self.follower.taken().minus(shards).is_empty();
        let batches = self.follower.end_repair(&snapshot);
        let after = self.follower.served();
        if !server.intake.repaired(cursor, is_whole, server.now) {
            self.follower.need_all(RepairCause::InLog);
        }
        for batch in &batches {
            route(batch, server);
        }
        let router = server.router();
        router.shards().take(after.minus(before), snapshot);
        router.serve(after);
    }

    pub(super) fn fail_repair(&mut self) {
        self.repair = None;
        self.follower.fail_repair();
    }
}

/// Routes the events of a batch.
fn route(batch: &Bytes, server: &mut Server) {
    let (_, Message::Batch { mut items, .. }) = read(batch.get(), VERSION).unwrap() else {
        return;
    };
    while let Some(Published::Notification(notification)) = items.next_item().unwrap() {
        server.trace(("published", notification.id));
        server.intake.published(notification);
    }
}
