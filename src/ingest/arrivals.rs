//! What comes over the listener's connection, counted: whether it is still reading what was committed a while ago.
//!
//! A barrier that comes late proves the listener dead, or stands behind a backlog. While there is a backlog, either
//! the socket always has something to read, or PostgreSQL's queue still has what it has not sent.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::future::poll_fn;
use tokio::task::coop;

/// Counts of one process. The listener alone counts.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    received: AtomicU64,
    drained: AtomicU64,
}

/// The counts at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Notifications that have come.
    pub(super) received: u64,
    /// Times that there was nothing more to read.
    pub(super) drained: u64,
}

impl Arrivals {
    /// Waits for a notification, and counts it. As cancel-safe as `next`.
    pub(super) async fn count<T, E>(
        &self,
        next: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut next = pin!(next);
        let received = poll_fn(|context| {
            let polled = next.as_mut().poll(context);
            // A task that has used up its budget waits although there may be more.
            if polled.is_pending() && coop::has_budget_remaining() {
                add_one(&self.drained);
            }
            polled
        })
        .await?;
        add_one(&self.received);
        Ok(received)
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            received: self.received.load(Relaxed),
            drained: self.drained.load(Relaxed),
        }
    }
}

/// There is one writer.
fn add_one(count: &AtomicU64) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

/// What the counts say of the time between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Nothing came.
    Silent,
    /// Something came, and now and then there was nothing more to read. PostgreSQL may have more.
    Interrupted,
    /// There was always more to read.
    Unbroken,
}

impl Counts {
    /// What came since these.
    pub(super) fn flow_since(self, before: Self) -> Flow {
        if self.received == before.received {
            Flow::Silent
        } else if self.drained == before.drained {
            Flow::Unbroken
        } else {
            Flow::Interrupted
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Poll;

    use super::*;

    /// Takes what there is, and then waits once.
    async fn take_all(arrivals: &Arrivals, queue: &mut VecDeque<u32>) {
        while !queue.is_empty() {
            let next = async { Ok::<_, ()>(queue.pop_front()) };
            arrivals.count(next).await.unwrap();
        }
        let mut waiting = pin!(arrivals.count(std::future::pending::<Result<(), ()>>()));
        let waited = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
        assert!(waited.await);
    }

    #[tokio::test]
    async fn the_flow_is_unbroken_while_there_is_always_more_to_read() {
        let arrivals = Arrivals::default();
        let begun = arrivals.counts();
        assert_eq!(arrivals.counts().flow_since(begun), Flow::Silent);
        arrivals.count(async { Ok::<_, ()>(1) }).await.unwrap();
        let first = arrivals.counts();
        assert_eq!(first.flow_since(begun), Flow::Unbroken);
        take_all(&arrivals, &mut VecDeque::from([2, 3])).await;
        let last = arrivals.counts();
        assert_eq!(last.flow_since(first), Flow::Interrupted);
        take_all(&arrivals, &mut VecDeque::new()).await;
        assert_eq!(arrivals.counts().flow_since(last), Flow::Silent);
    }

    #[tokio::test]
    async fn what_failed_has_not_come() {
        let arrivals = Arrivals::default();
        arrivals
            .count(async { Err::<(), _>(()) })
            .await
            .unwrap_err();
        assert_eq!(arrivals.counts(), Counts::default());
    }
}
