//! Sockets are closed a few at a time. Each close takes some system calls, and a hundred closes that are due
//! together would delay the events of everyone else.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::Semaphore;

use crate::socket::{Close, Socket, Stream};

/// Bounds how many sockets take their first step of closing at the same time. Any number may wait.
#[derive(Debug)]
pub struct CloseQueue(Semaphore);

impl CloseQueue {
    /// A queue that closes `concurrency` sockets at a time: one a thread.
    #[must_use]
    pub fn new(concurrency: usize) -> Self {
        Self(Semaphore::new(concurrency))
    }

    /// Closes the socket as [`Socket::close`] does. A peer that does not read at once is waited for outside
    /// of the queue.
    pub async fn close<S: Stream>(&self, socket: Socket<S>, close: Close) {
        let is_short = socket.closes_at_once(close);
        let mut closing = pin!(socket.close(close));
        if !is_short {
            let permit = self.0.acquire().await;
            let first_poll = poll_fn(|context| Poll::Ready(closing.as_mut().poll(context)));
            let is_closed = first_poll.await.is_ready();
            // Other tasks that have become ready run before the next close.
            tokio::task::yield_now().await;
            drop(permit);
            if is_closed {
                return;
            }
        }
        closing.await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::testing::{LIMITS, Read, Scripted, Seen};

    const RESTART: Close = Close::Start {
        code: 1012,
        reason: "restart",
    };

    /// A socket that reads this before its peer closes its side.
    fn socket(reads: impl IntoIterator<Item = Read>) -> (Socket<Scripted>, Arc<Seen>) {
        let stream = Scripted::new(reads);
        let seen = Arc::clone(&stream.seen);
        (Socket::new(stream, &[], LIMITS), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_waits_for_its_permit() {
        let queue = CloseQueue::new(0);
        let (socket, seen) = socket([]);
        let closing = queue.close(socket, RESTART);
        assert!(timeout(Duration::from_hours(1), closing).await.is_err());
        assert_eq!(seen.written(), b"");
    }

    #[tokio::test]
    async fn a_close_with_nothing_to_wait_for_needs_no_permit() {
        let queue = CloseQueue::new(0);
        queue.close(socket([]).0, Close::Abort).await;
        let (mut socket, seen) = socket([]);
        socket.next_event(true).await;
        queue.close(socket, RESTART).await;
        assert_eq!(seen.written(), b"\x88\x09\x03\xf4restart");
    }

    #[tokio::test]
    async fn other_tasks_run_after_as_many_closes_as_there_are_permits() {
        for concurrency in [1, 2] {
            let queue = Arc::new(CloseQueue::new(concurrency));
            let mut all_seen = Vec::new();
            for _ in 0..10 {
                let (socket, seen) = socket([]);
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.close(socket, RESTART).await });
                all_seen.push(seen);
            }
            let other = tokio::spawn(async move {
                let (mut closed, mut most_at_once) = (0, 0);
                while closed < all_seen.len() {
                    let written = all_seen.iter().filter(|seen| !seen.written().is_empty());
                    let now = written.count();
                    most_at_once = most_at_once.max(now - closed);
                    closed = now;
                    tokio::task::yield_now().await;
                }
                most_at_once
            });
            assert_eq!(other.await.unwrap(), concurrency);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_answer_keeps_no_permit() {
        let queue = Arc::new(CloseQueue::new(1));
        let begun = Instant::now();
        let (silent, seen) = socket((0..10).map(|_| Read::Nothing));
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.close(silent, RESTART).await }
        });
        while seen.written().is_empty() {
            tokio::task::yield_now().await;
        }
        queue.close(socket([]).0, RESTART).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        waiting.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(2));
    }
}
