//! Which page of missed events is read next from the log.
//!
//! A client gets its hello with the first page of what it missed, so a first page waits for first pages alone, and for
//! as many later ones as have a permit. There are fewer permits than connections for requests: however many clients
//! read page after page, a connection is left to those that come.

use governor::clock::{Clock, MonotonicClock};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::rate::{Rate, rate};

/// The permits and the rate of pages.
#[derive(Debug)]
pub(super) struct ReplayPages {
    rate: Rate,
    /// Those that wait for the rate, one after another.
    queue: Mutex<()>,
    later: Semaphore,
}

/// Held while a page is read.
#[derive(Debug)]
#[must_use]
pub struct PagePermit<'a>(
    #[allow(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>,
);

impl ReplayPages {
    /// So many pages in a second, over so many connections.
    pub(super) fn new(per_second: u32, connections: u32) -> Self {
        let later = connections.saturating_sub(1).max(1);
        Self {
            rate: rate(per_second),
            queue: Mutex::new(()),
            later: Semaphore::new(later as usize),
        }
    }

    /// Waits until something else than a page may be read, like a later page and at any rate. Cancel-safe.
    pub(super) async fn read(&self) -> PagePermit<'_> {
        // It fails only when the semaphore is closed, which nobody does.
        PagePermit(self.later.acquire().await.ok())
    }

    /// Waits until a page may be read. Later pages of a replay wait for a permit too. Cancel-safe.
    pub(super) async fn next(&self, is_first: bool) -> PagePermit<'_> {
        let permit = if is_first {
            PagePermit(None)
        } else {
            self.read().await
        };
        let _head_of_queue = self.queue.lock().await;
        while let Err(until) = self.rate.check() {
            tokio::time::sleep(until.wait_time_from(MonotonicClock.now())).await;
        }
        permit
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_first_page_does_not_wait_for_later_ones() {
        for (connections, permits) in [(1, 1), (2, 1), (4, 3)] {
            let pages = ReplayPages::new(1_000_000, connections);
            let held: Vec<_> = (0..permits)
                .map(|_| pages.next(false).now_or_never().unwrap())
                .collect();
            let mut waiting = Box::pin(pages.next(false));
            assert!(waiting.as_mut().now_or_never().is_none());
            let first = pages.next(true).now_or_never().unwrap();
            assert!(waiting.as_mut().now_or_never().is_none());
            drop((held, first));
            assert!(waiting.now_or_never().is_some());
        }
    }
}
