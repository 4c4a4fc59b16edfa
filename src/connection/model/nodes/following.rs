//! The follower's end of the bus: what drives the production [`Follower`] as the node's loop does.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use super::super::database::{Database, Row};
use super::bus::Bytes;
use super::scenario::Broken;
use super::server::Server;
use crate::nodes::{Follower, Message, Published, Run, VERSION, Verdict, read};
use crate::protocol::{Cursor, Shard, ShardSet, Snapshot};

/// A read of the log that is under way.
#[derive(Debug)]
struct Repair {
    from: Snapshot,
    shards: ShardSet,
    snapshot: Option<Snapshot>,
    /// What is still to be routed.
    rows: VecDeque<Row>,
}

/// A node that follows.
pub(super) struct Following {
    pub(super) follower: Follower<Bytes>,
    repair: Option<Repair>,
    /// Shards whose subscription the broker has not confirmed.
    unconfirmed: ShardSet,
    /// Presents of the database that no barrier has seen yet, and when each look began.
    presents: Vec<(Instant, Snapshot)>,
    /// The shard of each user.
    shards: Vec<Shard>,
    broken: Broken,
}

impl Hash for Following {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.follower.hash(state);
        let unconfirmed: Vec<_> = self.unconfirmed.iter().collect();
        (unconfirmed, self.presents.len()).hash(state);
        for (_, present) in &self.presents {
            present.hash(state);
        }
        if let Some(repair) = &self.repair {
            let shards: Vec<_> = repair.shards.iter().collect();
            let rows: Vec<_> = repair.rows.iter().map(|row| row.id).collect();
            (&repair.from, shards, &repair.snapshot, rows).hash(state);
        }
    }
}

/// A step of the read that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ReadStep {
    Begin,
    Snapshot,
    Row,
    End,
}

impl Following {
    /// Follows this run with the shards that are wanted.
    pub(super) fn new(run: Run, shards: &[Shard], broken: Broken, server: &mut Server) -> Self {
        server.trace("follow");
        let wanted = server.hub.interest().wanted();
        server.router.shards().lose(ShardSet::ALL.minus(wanted));
        server.router.serve(ShardSet::NONE);
        let mut following = Self {
            follower: Follower::new(run),
            repair: None,
            unconfirmed: ShardSet::NONE,
            presents: Vec::new(),
            shards: shards.to_vec(),
            broken,
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
        server.router.serve(self.follower.served());
        server.router.shards().lose(ShardSet::NONE.with(shard));
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
        while let Some(mut cursor) = self.follower.pass() {
            let is_seen = |(_, present): &(Instant, Snapshot)| cursor.snapshot.covers(present);
            let seen = self
                .presents
                .iter()
                .take_while(|look| is_seen(look))
                .count();
            cursor.sent = self
                .presents
                .drain(..seen)
                .next_back()
                .map(|(began, _)| began);
            server.complete_barrier(cursor);
        }
    }

    /// A look has found who leads and how far the database is.
    pub(super) fn found(&mut self, run: Run, present: Snapshot, server: &mut Server) {
        server.trace("look");
        self.follower.follow(run);
        self.presents.push((server.now, present));
    }

    /// What can be done next for a repair.
    pub(super) fn next_read(&self) -> Option<ReadStep> {
        match &self.repair {
            None if self.follower.needed().next().is_some() => Some(ReadStep::Begin),
            None => None,
            Some(repair) if repair.snapshot.is_none() || repair.shards.is_empty() => {
                Some(ReadStep::Snapshot)
            }
            Some(repair) if repair.rows.is_empty() => Some(ReadStep::End),
            Some(_) => Some(ReadStep::Row),
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.repair.is_some()
    }

    pub(super) fn read(&mut self, step: ReadStep, server: &mut Server, database: &Database) {
        match step {
            ReadStep::Begin => self.begin_repair(server, database),
            ReadStep::Snapshot => self.take_snapshot(database),
            ReadStep::Row => {
                let repair = self.repair.as_mut().unwrap();
                server.route_row(&repair.rows.pop_front().unwrap());
            }
            ReadStep::End => self.end_repair(server),
        }
    }

    fn begin_repair(&mut self, server: &Server, database: &Database) {
        let is_first = self.broken == Broken::SnapshotFirst;
        self.repair = Some(Repair {
            from: server.durable(),
            shards: if is_first {
                ShardSet::NONE
            } else {
                self.follower.begin_repair()
            },
            snapshot: is_first.then(|| database.snapshot()),
            rows: VecDeque::new(),
        });
    }

    fn take_snapshot(&mut self, database: &Database) {
        let repair = self.repair.as_mut().unwrap();
        if repair.shards.is_empty() {
            repair.shards = self.follower.begin_repair();
        }
        let snapshot = repair.snapshot.get_or_insert_with(|| database.snapshot());
        self.follower.read_at(snapshot);
        let mut rows = database.read(&repair.from, snapshot);
        rows.retain(|row| repair.shards.contains(self.shards[row.user]));
        repair.rows = rows.into();
    }

    fn end_repair(&mut self, server: &mut Server) {
        let snapshot = self.repair.take().unwrap().snapshot.unwrap();
        server.trace(("repaired", snapshot.to_string()));
        let before = self.follower.served();
        let batches = self.follower.end_repair(&snapshot);
        let after = self.follower.served();
        server.router.routed_ahead(snapshot.clone());
        for batch in &batches {
            route(batch, server);
        }
        let router = &mut server.router;
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
        server.router.route(notification);
    }
}
