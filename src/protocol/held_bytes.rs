//! A bound on the bytes that live values hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes of what is alive. Cheap to clone: every clone is the same count.
#[derive(Debug, Clone)]
pub struct HeldBytes {
    held: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub struct Held {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl HeldBytes {
    /// At most so many bytes together.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            held: Arc::default(),
            bytes_max,
        }
    }

    /// Counts so many more; `None` where that is more than the bound.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Option<Held> {
        let sum = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum)
            .ok()?;
        Some(Held {
            held: Arc::clone(&self.held),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_makes_room() {
        let bytes = HeldBytes::new(10);
        let first = bytes.hold(6).unwrap();
        assert!(bytes.hold(5).is_none());
        assert!(bytes.hold(usize::MAX).is_none());
        let second = bytes.clone().hold(4).unwrap();
        assert!(bytes.hold(1).is_none());
        drop(first);
        assert!(bytes.hold(6).is_some());
        drop(second);
        assert!(bytes.hold(10).is_some());
    }
}
