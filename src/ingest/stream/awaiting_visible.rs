//! Rows that PostgreSQL has sent and others do not see yet. Pure.
//!
//! A row is handed on when a snapshot sees its transaction, and those that are seen keep their order. What an event depends
//! on was visible when the event was written, so that nothing overtakes what it depends on.

use std::collections::VecDeque;

use crate::protocol::Snapshot;
use crate::store::StreamedRow;

/// The rows, in the order of commits, each with the place of its transaction's commit in the write-ahead log.
#[derive(Debug, Default)]
pub(super) struct AwaitingVisible {
    rows: VecDeque<(u64, StreamedRow)>,
    bytes: usize,
}

impl AwaitingVisible {
    pub(super) fn push(&mut self, commit: u64, row: StreamedRow) {
        self.bytes += bytes_of(&row);
        self.rows.push_back((commit, row));
    }

    /// The memory of all.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Where the commit of the oldest is.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.rows.front().map(|(commit, _)| *commit)
    }

    /// Takes out those that the snapshot sees.
    pub(super) fn take_visible(&mut self, snapshot: &Snapshot) -> Vec<StreamedRow> {
        let mut visible = Vec::with_capacity(self.rows.len());
        for (commit, row) in std::mem::take(&mut self.rows) {
            if snapshot.sees(row.xid()) {
                self.bytes -= bytes_of(&row);
                visible.push(row);
            } else {
                self.rows.push_back((commit, row));
            }
        }
        visible
    }
}

/// With the commit's place, in a queue that has just grown.
fn bytes_of(row: &StreamedRow) -> usize {
    2 * size_of::<(u64, StreamedRow)>() + row.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Xid;

    fn xids(rows: &[StreamedRow]) -> Vec<u64> {
        rows.iter().map(|row| row.xid().get()).collect()
    }

    #[test]
    fn what_a_snapshot_sees_is_taken_in_order_and_the_rest_waits() {
        let mut awaiting = AwaitingVisible::default();
        for (commit, xid) in [(1, 7), (2, 5), (3, 6), (4, 9)] {
            awaiting.push(commit, StreamedRow::Unread(Xid::new(xid).unwrap()));
        }
        let visible = awaiting.take_visible(&"5:9:5".parse().unwrap());
        assert_eq!(xids(&visible), [7, 6]);
        assert_eq!(awaiting.oldest(), Some(2));
        let visible = awaiting.take_visible(&"10:10:".parse().unwrap());
        assert_eq!(xids(&visible), [5, 9]);
        assert!(awaiting.is_empty() && awaiting.bytes() == 0);
    }
}
