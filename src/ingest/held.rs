//! Notifications that came while the log was being read. Pure.
//!
//! They wait until the read has been routed: an event that was committed after it must not overtake it.

use std::collections::VecDeque;

/// Memory of the notifications that are held, in bytes, as one that has just grown takes it.
pub const HELD_BYTES_MAX: usize = 32 << 20;
/// A queue that grows has its old and its new memory for a moment, and the new one may be half empty.
const GROWTH: usize = 3;

/// A queue with a bound in bytes.
#[derive(Debug)]
pub(super) struct Held<T> {
    queue: VecDeque<T>,
    bytes: usize,
    bytes_max: usize,
    overflowed: bool,
}

/// Something that can be held.
pub(super) trait Holdable {
    /// The memory that it has beside itself, in bytes.
    fn bytes(&self) -> usize;
}

impl<T: Holdable> Held<T> {
    /// Takes at most so much memory.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            bytes_max,
            overflowed: false,
        }
    }

    fn bytes_of(one: &T) -> usize {
        GROWTH * size_of::<T>() + one.bytes()
    }

    /// Holds one more, or drops it when the bound is reached.
    pub(super) fn push(&mut self, one: T) {
        let bytes = Self::bytes_of(&one);
        // None after one that was dropped: what is held has no gap but at its end.
        if !self.overflowed && self.bytes + bytes <= self.bytes_max {
            self.bytes += bytes;
            self.queue.push_back(one);
        } else {
            self.overflowed = true;
        }
    }

    /// How many it holds.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether any was dropped since the last call. The held notifications then have a gap, and the log
    /// has to be read once more.
    pub(super) fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// The oldest.
    pub(super) fn pop(&mut self) -> Option<T> {
        let oldest = self.queue.pop_front()?;
        self.bytes -= Self::bytes_of(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Holdable for i32 {
        fn bytes(&self) -> usize {
            100
        }
    }

    /// So many numbers fit.
    fn held(count: usize) -> Held<i32> {
        Held::new(count * Held::bytes_of(&0))
    }

    #[test]
    fn they_come_out_in_the_order_in_which_they_came() {
        let mut held = held(10);
        for number in 0..3 {
            held.push(number);
        }
        assert_eq!(held.pop(), Some(0));
        held.push(3);
        let rest: Vec<i32> = std::iter::from_fn(|| held.pop()).collect();
        assert_eq!(rest, [1, 2, 3]);
        assert!(!held.take_overflowed());
    }

    #[test]
    fn beyond_the_bound_the_newest_are_dropped_and_reported_once() {
        let mut held = held(2);
        held.push(1);
        held.push(2);
        assert!(!held.take_overflowed(), "a full queue has lost nothing");
        held.push(3);
        assert!(held.take_overflowed());
        assert!(!held.take_overflowed());
        assert_eq!(
            (held.pop(), held.pop(), held.pop()),
            (Some(1), Some(2), None)
        );
    }

    impl Holdable for String {
        fn bytes(&self) -> usize {
            self.capacity()
        }
    }

    #[test]
    fn after_one_that_was_dropped_none_is_held_until_the_gap_is_reported() {
        let mut held = Held::new(1_000);
        held.push("x".repeat(500));
        held.push("x".repeat(1_000));
        held.push("after the gap".to_owned());
        assert_eq!(held.len(), 1);
        assert!(held.take_overflowed());
        held.push("after the read".to_owned());
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn what_was_taken_out_makes_room() {
        let mut held = held(2);
        for number in 0..10 {
            held.push(number);
            assert_eq!(held.pop(), Some(number));
        }
        assert!(!held.take_overflowed());
    }
}
