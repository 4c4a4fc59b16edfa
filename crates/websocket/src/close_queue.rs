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
