//! A made-up database with a log and a notification channel.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use crate::protocol::{Cursor, Snapshot, Xid};

/// A row of the log.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) xid: Xid,
    pub(super) user: usize,
    pub(super) text: String,
    /// The ids that were committed when the row was written: its writer has seen them.
    pub(super) seen: BTreeSet<i64>,
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
        let text = format!(
            r#"{{"type":"device","user_id":"{}", "id" : {id}, "xid" : {xid}}}"#,
            users[user]
        );
        let seen = self.log.iter().map(|row| row.id).collect();
        self.running[transaction].1.push(Row {
            id,
            xid: Xid::new(xid).unwrap(),
            user,
            text,
            seen,
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
        let next = cursor(self.snapshot(), Some(sent));
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

    /// The committed rows that `until` sees and `from` does not, in the order of ids.
    pub(super) fn read(&self, from: &Snapshot, until: &Snapshot) -> Vec<Row> {
        let unseen = |row: &&Row| until.sees(row.xid) && !from.sees(row.xid);
        let mut rows: Vec<_> = self.log.iter().filter(unseen).cloned().collect();
        rows.sort_by_key(|row| row.id);
        rows
    }
}

pub(super) fn cursor(snapshot: Snapshot, sent: Option<Instant>) -> Cursor {
    Cursor {
        epoch: "1-1".parse().unwrap(),
        snapshot,
        sent,
    }
}
