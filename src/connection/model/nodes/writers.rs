//! The database's writers: transactions of the scenario, by their numbers.

use uuid::Uuid;

use super::super::database::{ALL_USERS, Database, Row};

/// The database, and what writes to it.
pub(super) struct Writers {
    pub(super) database: Database,
    users: Vec<Uuid>,
    /// The numbers of the scenario's transactions.
    transactions: Vec<u64>,
}

impl Writers {
    pub(super) fn new(database: Database, users: Vec<Uuid>) -> Self {
        Self {
            database,
            users,
            transactions: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self) -> usize {
        self.database.begin();
        self.transactions.push(self.database.next_xid);
        self.transactions.len() - 1
    }

    /// The place of a transaction among those that run. A promotion has ended those that ran before.
    fn running(&self, transaction: usize) -> Option<usize> {
        let xid = self.transactions[transaction];
        let mut running = self.database.running.iter();
        running.position(|(running, _)| *running == xid)
    }

    pub(super) fn write(&mut self, transaction: usize, user: usize) {
        if let Some(place) = self.running(transaction) {
            self.database.write(place, user, &self.users);
        }
    }

    pub(super) fn commit(&mut self, transaction: usize) {
        if let Some(place) = self.running(transaction) {
            self.database.commit(place);
        }
    }

    /// A table is emptied.
    pub(super) fn truncate(&mut self) {
        let transaction = self.begin();
        self.write(transaction, ALL_USERS);
        self.commit(transaction);
    }

    /// What a transaction has written so far.
    pub(super) fn rows(&self, transaction: usize) -> Vec<Row> {
        let place = self.running(transaction);
        place.map_or(Vec::new(), |place| self.database.running[place].1.clone())
    }

    pub(super) fn promote(&mut self, lost: usize) {
        self.database.promote(lost);
        // Their numbers are given out again.
        for xid in &mut self.transactions {
            *xid = 0;
        }
    }
}
