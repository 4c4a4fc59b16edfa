//! The transactions of the signals that the replay buffer no longer holds.

use crate::protocol::{Snapshot, Xid};

/// Transactions that are remembered one by one. Of more, only the lowest and the highest are.
const TRANSACTIONS_MAX: usize = 65_536;
/// The memory of these, in bytes, as a list that has just grown takes it.
pub const FORGOTTEN_BYTES_MAX: usize = 3 * TRANSACTIONS_MAX * size_of::<Xid>();

/// Transactions that no barrier is known to have seen yet.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    transactions: Vec<Xid>,
    /// Beside them, all from the one to the other.
    range: Option<(Xid, Xid)>,
}

impl Forgotten {
    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.range.is_none()
    }

    pub(super) fn add(&mut self, transactions: impl Iterator<Item = Xid>) {
        for xid in transactions {
            if self.transactions.last() != Some(&xid) {
                self.transactions.push(xid);
            }
            if self.transactions.len() > TRANSACTIONS_MAX {
                for xid in self.transactions.drain(..) {
                    let (first, last) = self.range.get_or_insert((xid, xid));
                    (*first, *last) = ((*first).min(xid), (*last).max(xid));
                }
            }
        }
    }

    pub(super) fn are_seen_by(&self, barrier: &Snapshot) -> bool {
        let range = self.range;
        range.is_none_or(|(first, last)| barrier.sees_all(first, last))
            && self.transactions.iter().all(|xid| barrier.sees(*xid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn a_barrier_has_to_have_seen_each() {
        let mut forgotten = Forgotten::default();
        assert!(forgotten.is_empty() && forgotten.are_seen_by(&snapshot("1:1:")));
        forgotten.add([5, 5, 9].into_iter().filter_map(Xid::new));
        assert!(!forgotten.is_empty());
        assert!(forgotten.are_seen_by(&snapshot("7:10:7")));
        assert!(!forgotten.are_seen_by(&snapshot("5:10:5")));
        assert!(!forgotten.are_seen_by(&snapshot("9:9:")));
    }

    #[test]
    fn of_very_many_a_barrier_has_to_have_seen_all_in_between() {
        let mut forgotten = Forgotten::default();
        let even = (1..=TRANSACTIONS_MAX as u64 + 1).map(|n| 2 * n);
        let last = 2 * (TRANSACTIONS_MAX as u64 + 1);
        forgotten.add(even.filter_map(Xid::new));
        assert!(forgotten.transactions.is_empty());
        let seen = |running: &str| {
            let oldest = running.split(',').next().unwrap();
            let next = last + 1;
            forgotten.are_seen_by(&snapshot(&format!("{oldest}:{next}:{running}")))
        };
        // One before the first, and one between two of them.
        assert!(seen("1"));
        assert!(!seen("3"));
        assert!(!forgotten.are_seen_by(&snapshot(&format!("{last}:{last}:"))));
    }
}
