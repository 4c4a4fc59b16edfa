//! How old events are when they are written to a socket, by sample.
//!
//! An event's frame is the specification's and carries no time, so the time of its row is looked up
//! in the log afterwards: at most [`SAMPLES_PER_SECOND`] deliveries, one query a second, and nothing
//! when nothing was delivered. A delivery never waits for it; a sample that does not fit is dropped.
//! Compares the database's clock with this machine's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use crate::log::Log;
use crate::metrics::Metrics;
use crate::wire::Event;

/// Deliveries that are looked up in one query.
const SAMPLES_PER_SECOND: usize = 256;

/// An event that was written to a socket.
#[derive(Debug)]
pub struct Delivery {
    id: i64,
    /// Its transaction was not before this one: spares the query most of the log.
    xmin: u64,
    at: SystemTime,
}

/// Takes deliveries from connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LatencySampler {
    samples: mpsc::Sender<Delivery>,
}

impl LatencySampler {
    /// A sampler, and the task's end of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Delivery>) {
        let (samples, receiver) = mpsc::channel(SAMPLES_PER_SECOND);
        (Self { samples }, receiver)
    }

    /// The event has just been written to a socket.
    pub fn delivered(&self, event: &Event) {
        let (Some(id), Some(passed)) = (event.id, &event.passed) else {
            return;
        };
        // No clock is read for a delivery that does not fit into the sample.
        if let Ok(place) = self.samples.try_reserve() {
            place.send(Delivery {
                id,
                xmin: passed.snapshot.xmin(),
                at: SystemTime::now(),
            });
        }
    }
}

/// Looks samples up and records them, for ever.
pub async fn record(mut samples: mpsc::Receiver<Delivery>, log: Log, metrics: Arc<Metrics>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut batch = Vec::with_capacity(SAMPLES_PER_SECOND);
    loop {
        second.tick().await;
        if samples.recv_many(&mut batch, SAMPLES_PER_SECOND).await == 0 {
            return;
        }
        let ids: Vec<i64> = batch.iter().map(|delivery| delivery.id).collect();
        let xmin = batch
            .iter()
            .map(|delivery| delivery.xmin)
            .min()
            .unwrap_or_default();
        match log.creation_times(&ids, xmin).await {
            Ok(times) => {
                let created: HashMap<i64, f64> = times.into_iter().collect();
                for delivery in batch.drain(..) {
                    let at = delivery.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                    if let Some(created) = created.get(&delivery.id) {
                        metrics.delivery_latency((at.as_secs_f64() - created).max(0.0));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(event = "latency_sample_lost", %error);
                batch.clear();
            }
        }
    }
}
