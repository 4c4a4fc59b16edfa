//! The order of routing.

use std::num::NonZeroU64;

/// The position of a signal in the order in which this process routed them, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    /// The number that follows `last`; the first one after `None`.
    #[must_use]
    pub fn after(last: Option<Self>) -> Self {
        Self(last.map_or(NonZeroU64::MIN, |last| last.0.saturating_add(1)))
    }

    /// The sequence number `number`; `None` for 0, before anything was routed.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_one_another_from_one() {
        let first = Sequence::after(None);
        let second = Sequence::after(Some(first));
        assert_eq!((first.get(), second.get()), (1, 2));
        assert!(first < second);
        assert_eq!(Sequence::new(2), Some(second));
        assert_eq!(Sequence::new(0), None);
    }
}
