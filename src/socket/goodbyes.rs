//! Goodbyes are said one after another: each costs some system calls, and a hundred that are due together
//! would stand in the runtime's queue before the next event.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::sync::Semaphore;

use super::Socket;
use crate::protocol::Closed;

/// Whose turn it is. As many may be waiting as there are connections.
#[derive(Debug)]
pub struct Goodbyes(Semaphore);

impl Goodbyes {
    /// So many at a time: one a thread.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self(Semaphore::new(at_once))
    }

    /// Closes the socket as the ending demands. What the peer does not take at once it has time for when
    /// the others are having their turns.
    pub async fn say(&self, socket: Socket, ending: Closed) {
        let is_short = ending == Closed::ByNetwork || socket.arrivals.are_over();
        let mut goodbye = pin!(socket.close(ending));
        if !is_short {
            let turn = self.0.acquire().await;
            let over = poll_fn(|context| Poll::Ready(goodbye.as_mut().poll(context).is_ready()));
            let over = over.await;
            // Whatever else has become ready comes before the next.
            tokio::task::yield_now().await;
            drop(turn);
            if over {
                return;
            }
        }
        goodbye.await;
    }
}
