//! What the election asks of the ingest task.

use tokio::sync::{mpsc, oneshot};

/// This node has the lock. It publishes what it routes in a run of this number from here on, and says so; then the run is
/// written to the database. So nothing that is routed after the followers know of the run is left out.
#[derive(Debug)]
pub struct Order {
    /// A random number.
    pub run: u64,
    /// Answered when what is routed is published.
    pub ready: oneshot::Sender<()>,
}

/// The orders, one after another.
#[derive(Debug)]
pub struct Orders(mpsc::Receiver<Order>);

impl Orders {
    /// The election's end and the ingest task's.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<Order>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver))
    }

    /// The next order. For ever pending once the election has ended. Cancel-safe.
    pub async fn next(&mut self) -> Order {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}
