//! A made-up database with a log and a notification channel.

use std::collections::{BTreeSet, HashSet, VecDeque};

use uuid::Uuid;

use crate::protocol::{Cursor, Snapshot};

/// A row of the log.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    xid: u64,
    pub(super) user: usize,
    pub(super) text: String,
    /// The ids that were committed when the row was written: its writer has seen them.
    pub(super) seen: BTreeSet<i64>,
}

#[derive(Debug)]
pub(super) enum Notified {
    Row(Row),
    Barrier(Snapshot),
}

/// A database that keeps what is committed, and tells in the order of commits.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) next_xid: u64,
    next_id: i64,
    pub(super) running: Vec<(u64, Vec<Row>)>,
    committed: HashSet<u64>,
    /// Committed rows.
    log: Vec<Row>,
    pub(super) channel: VecDeque<Notified>,
}

impl Database {
    pub(super) fn begin(&mut self) {
        self.next_xid += 1;
        self.running.push((self.next_xid, Vec::new()));
    }

    pub(super) fn write(&mut self, transaction: usize, user: usize, users: &[Uuid]) {
        self.next_id += 1;
        let (xid, id) = (self.running[transaction].0, self.next_id);
        let text = format!(
            r#"{{"type":"device","user_id":"{}","id":{id}}}"#,
            users[user]
        );
        let seen = self.log.iter().map(|row| row.id).collect();
        self.running[transaction].1.push(Row {
            id,
            xid,
            user,
            text,
            seen,
        });
    }

    pub(super) fn commit(&mut self, transaction: usize) {
        let (xid, rows) = self.running.swap_remove(transaction);
        self.committed.insert(xid);
        for row in rows {
            self.log.push(row.clone());
            self.channel.push_back(Notified::Row(row));
        }
    }

    pub(super) fn roll_back(&mut self, transaction: usize) {
        self.running.swap_remove(transaction);
    }

    /// A transaction that notifies its own snapshot.
    pub(super) fn barrier(&mut self) {
        let snapshot = self.snapshot();
        self.next_xid += 1;
        self.channel.push_back(Notified::Barrier(snapshot));
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

pub(super) fn cursor(snapshot: Snapshot, from_stream: bool) -> Cursor {
    Cursor {
        epoch: "1-1".parse().unwrap(),
        snapshot,
        from_stream,
    }
}
