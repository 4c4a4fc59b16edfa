//! How many bytes of large events connections hold at a time.
//!
//! A connection has its permit from before the event is read until the event is with the kernel. So a client that does not
//! read holds it until the write timeout closes the connection.

use tokio::sync::{Semaphore, SemaphorePermit};

/// The bytes of all connections together.
pub const LARGE_EVENTS_BYTES_MAX: usize = 64 << 20;
/// An event is held as it was read, as it was composed and as a frame.
const COPIES: usize = 3;

/// The permits.
#[derive(Debug)]
pub(super) struct LargeEvents(Semaphore);

/// Held while a connection has a large event.
#[derive(Debug)]
#[must_use]
pub struct LargePermit<'a>(
    #[allow(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>,
);

impl Default for LargeEvents {
    fn default() -> Self {
        Self(Semaphore::new(LARGE_EVENTS_BYTES_MAX))
    }
}

impl LargeEvents {
    /// Waits until there is room for an event of so many bytes. Those that wait come in their order. Cancel-safe.
    pub(super) async fn hold(&self, bytes: usize) -> LargePermit<'_> {
        let bytes = bytes.saturating_mul(COPIES).min(LARGE_EVENTS_BYTES_MAX);
        // It fails only when the semaphore is closed, which nobody does.
        let permits = self
            .0
            .acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX));
        LargePermit(permits.await.ok())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn events_wait_until_there_is_room_for_them() {
        let events = LargeEvents::default();
        let most = LARGE_EVENTS_BYTES_MAX / COPIES;
        let first = events.hold(most / 2).now_or_never().unwrap();
        let second = events.hold(most / 2).now_or_never().unwrap();
        let mut third = Box::pin(events.hold(usize::MAX));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.now_or_never().is_some());
    }
}
