//! A made-up database with a log and a notification channel.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use crate::protocol::{Cursor, Epoch, Snapshot, Xid};
use crate::store::{Body, Chunk, ChunkRow, Durability, Reading};

/// In the place of a user: the row is for all of them, and says that there is no event of what has changed.
pub(super) const ALL_USERS: usize = usize::MAX;

/// A row of the log.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) xid: Xid,
    pub(super) user: usize,
    pub(super) text: String,
    /// The ids that were committed when the row was written: its writer has seen them.
    pub(super) seen: BTreeSet<i64>,
    /// Whether the log retains it.
    pub(super) is_retained: bool,
}

impl Row {
    pub(super) fn in_log(&self) -> ChunkRow {
        ChunkRow {
            id: self.id,
            xid: Some(self.xid),
            body: Body::Json(self.text.clone()),
        }
    }
}

#[derive(Debug)]
pub(super) enum Notified {
    Row(Row),
    /// Of the server that listens.
    Barrier(Cursor),
}

/// The connection over which a server listens.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) notified: VecDeque<Notified>,
    /// The server's barrier that has not committed yet.
    barrier: Option<Cursor>,
}

impl Channel {
    /// It is lost with everything on it.
    pub(super) fn lose(&mut self) {
        *self = Self::default();
    }
}

/// A database that keeps what is committed, and notifies in the order of commits.
#[derive(Debug)]
pub(super) struct Database {
    timeline: u32,
    pub(super) next_xid: u64,
    next_id: i64,
    pub(super) running: Vec<(u64, Vec<Row>)>,
    /// Committed rows.
    log: Vec<Row>,
    /// One for each server.
    pub(super) channels: Vec<Channel>,
}

impl Database {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            timeline: 1,
            next_xid: 0,
            next_id: 0,
            running: Vec::new(),
            log: Vec::new(),
            channels: (0..servers).map(|_| Channel::default()).collect(),
        }
    }

    pub(super) fn begin(&mut self) {
        self.next_xid += 1;
        self.running.push((self.next_xid, Vec::new()));
    }

    pub(super) fn write(&mut self, transaction: usize, user: usize, users: &[Uuid]) {
        self.next_id += 1;
        let (xid, id) = (self.running[transaction].0, self.next_id);
        let text = match users.get(user) {
            Some(user) => {
                format!(r#"{{"type":"device","user_id":"{user}", "id" : {id}, "xid" : {xid}}}"#)
            }
            None => format!(r#"{{"type" : "truncated", "table" : "devices", "id" : {id}}}"#),
        };
        let seen = self.log.iter().map(|row| row.id).collect();
        self.running[transaction].1.push(Row {
            id,
            xid: Xid::new(xid).unwrap(),
            user,
            text,
            seen,
            is_retained: true,
        });
    }

    pub(super) fn commit(&mut self, transaction: usize) {
        let (_, rows) = self.running.swap_remove(transaction);
        for row in rows {
            self.log.push(row.clone());
            for channel in &mut self.channels {
                channel.notified.push_back(Notified::Row(row.clone()));
            }
        }
    }

    pub(super) fn roll_back(&mut self, transaction: usize) {
        self.running.swap_remove(transaction);
    }

    /// A server's barrier commits, and the next one takes its snapshot: others commit in between.
    pub(super) fn barrier(&mut self, server: usize, sent: Instant) {
        let next = Cursor {
            sent: Some(sent),
            ..self.present()
        };
        let channel = &mut self.channels[server];
        if let Some(barrier) = channel.barrier.replace(next) {
            self.next_xid += 1;
            channel.notified.push_back(Notified::Barrier(barrier));
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut running: Vec<_> = self.running.iter().map(|(xid, _)| *xid).collect();
        running.sort_unstable();
        let xmax = self.next_xid + 1;
        let xmin = running.first().copied().unwrap_or(xmax);
        let running: Vec<_> = running.iter().map(ToString::to_string).collect();
        format!("{xmin}:{xmax}:{}", running.join(","))
            .parse()
            .unwrap()
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch {
            history: 1,
            timeline: self.timeline,
        }
    }

    pub(super) fn present(&self) -> Cursor {
        Cursor {
            epoch: self.epoch(),
            ..cursor(self.snapshot(), None)
        }
    }

    /// The committed rows that `until` sees and `from` does not, in the order of ids, whether or not they are retained.
    pub(super) fn committed(&self, from: &Snapshot, until: &Snapshot) -> Vec<Row> {
        let unseen = |row: &&Row| until.sees(row.xid) && !from.sees(row.xid);
        let mut rows: Vec<_> = self.log.iter().filter(unseen).cloned().collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// Those of them that are retained.
    pub(super) fn read(&self, from: &Snapshot, until: &Snapshot) -> Vec<Row> {
        let mut rows = self.committed(from, until);
        rows.retain(|row| row.is_retained);
        rows
    }

    /// What a read in the present is worth for a reader that comes from there.
    pub(super) fn reading(&self, from: &Snapshot) -> Reading {
        let mut forgotten = self.log.iter().filter(|row| !row.is_retained);
        let cursor = self.present();
        Reading {
            retained: forgotten.all(|row| from.sees(row.xid)),
            known: from.xmax() <= cursor.snapshot.xmax(),
            gap: None,
            durability: Durability::Flushed,
            cursor,
        }
    }

    /// A read of everything in the present.
    pub(super) fn chunk(&self, from: &Snapshot) -> Chunk {
        let reading = self.reading(from);
        let rows = self.read(from, &reading.cursor.snapshot);
        Chunk {
            rows: rows.iter().map(Row::in_log).collect(),
            reading,
        }
    }

    /// The log retains nothing of what is committed.
    pub(super) fn forget(&mut self) {
        for row in &mut self.log {
            row.is_retained = false;
        }
    }

    /// A standby is promoted that has not got the last commits, as many as these. Their transactions' numbers are given out
    /// again, and those of transactions that ran.
    pub(super) fn promote(&mut self, lost: usize) {
        self.timeline += 1;
        self.running.clear();
        self.log.truncate(self.log.len().saturating_sub(lost));
        let newest = self.log.iter().map(|row| row.xid.get()).max();
        self.next_xid = newest.unwrap_or(1);
        for channel in &mut self.channels {
            channel.lose();
        }
    }

    /// Whether the log has had this row, and still has.
    pub(super) fn has(&self, id: i64) -> bool {
        self.log.iter().any(|row| row.id == id)
    }
}

pub(super) fn cursor(snapshot: Snapshot, sent: Option<Instant>) -> Cursor {
    Cursor {
        epoch: "1-1".parse().unwrap(),
        snapshot,
        sent,
    }
}
