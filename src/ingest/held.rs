//! Notifications that came while the log was being read. Pure.
//!
//! They wait until the read has been routed: an event that was committed after it must not overtake it.

use std::collections::VecDeque;

/// A queue with a bound.
#[derive(Debug)]
pub(super) struct Held<T> {
    queue: VecDeque<T>,
    max: usize,
    overflowed: bool,
}

impl<T> Held<T> {
    /// Holds at most `max`.
    pub(super) fn new(max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            max,
            overflowed: false,
        }
    }

    /// Holds one more, or drops it when the bound is reached.
    pub(super) fn push(&mut self, one: T) {
        if self.queue.len() < self.max {
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
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_out_in_the_order_in_which_they_came() {
        let mut held = Held::new(10);
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
        let mut held = Held::new(2);
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
}
