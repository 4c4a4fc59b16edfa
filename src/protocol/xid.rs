//! A transaction's number: PostgreSQL's `xid8`.

use std::num::NonZeroU64;

/// The number of the transaction that has written an event. It orders nothing; a [`super::Snapshot`] says whether it
/// sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(NonZeroU64);

impl Xid {
    /// `None` for 0, which no transaction has.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}
