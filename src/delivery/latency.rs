//! How old events are when they are written to a socket, by sample.
//!
//! An event's frame is the specification's and carries no time, so the time of its row is looked up
//! in the log afterwards: at most [`SAMPLES_PER_SECOND`] deliveries, one query a second, and nothing
//! when nothing was delivered. A delivery never waits for it; a sample that does not fit is dropped.
//! Compares the database's clock with this machine's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;
use crate::protocol::Event;
use crate::store::Log;

/// Deliveries that are looked up in one query.
const SAMPLES_PER_SECOND: usize = 256;

/// An event that was written to a socket.
#[derive(Debug)]
pub struct Delivery {
    id: i64,
    /// A bound on its transaction from below, which spares the query most of the log.
    xmin: u64,
    at: SystemTime,
}

/// Takes deliveries from connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LatencySampler {
    samples: mpsc::Sender<Delivery>,
    newest: watch::Sender<Option<Newest>>,
}

/// The 99th percentile of a second's sample, and when it was taken.
#[derive(Debug, Clone, Copy)]
pub struct Newest {
    p99: Duration,
    at: Instant,
}

/// The age from which on a percentile says nothing of the present: two of its seconds.
const NEWEST_AGE_MAX: Duration = Duration::from_secs(2);

/// Where samples are looked up and recorded.
#[derive(Debug)]
pub struct Samples {
    deliveries: mpsc::Receiver<Delivery>,
    newest: watch::Sender<Option<Newest>>,
}

impl LatencySampler {
    /// A sampler, and the end of it that [`record`] reads.
    #[must_use]
    pub fn new() -> (Self, Samples) {
        let (samples, deliveries) = mpsc::channel(SAMPLES_PER_SECOND);
        let (newest, _) = watch::channel(None);
        let recorded = Samples {
            deliveries,
            newest: newest.clone(),
        };
        (Self { samples, newest }, recorded)
    }

    /// The 99th percentile of the last second's deliveries; `None` if there were none.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        let newest = *self.newest.borrow();
        newest
            .filter(|newest| newest.at.elapsed() <= NEWEST_AGE_MAX)
            .map(|newest| newest.p99)
    }

    /// The event has just been written to a socket.
    pub fn delivered(&self, event: &Event) {
        let (Some(id), Some(cursor)) = (event.id, &event.cursor) else {
            return;
        };
        // No clock is read for a delivery that does not fit into the sample.
        if let Ok(place) = self.samples.try_reserve() {
            place.send(Delivery {
                id,
                xmin: cursor.snapshot.xmin(),
                at: SystemTime::now(),
            });
        }
    }
}

/// Looks samples up and records them, for ever.
pub async fn record(samples: Samples, log: Log, metrics: Arc<Metrics>) {
    let Samples {
        mut deliveries,
        newest,
    } = samples;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut batch = Vec::with_capacity(SAMPLES_PER_SECOND);
    loop {
        second.tick().await;
        if deliveries.recv_many(&mut batch, SAMPLES_PER_SECOND).await == 0 {
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
                let mut latencies = Vec::with_capacity(batch.len());
                for delivery in batch.drain(..) {
                    let at = delivery.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                    if let Some(created) = created.get(&delivery.id) {
                        let latency = (at.as_secs_f64() - created).max(0.0);
                        metrics.delivery_latency.record(latency);
                        latencies.push(latency);
                    }
                }
                if let Some(p99) = p99(&mut latencies) {
                    let at = Instant::now();
                    newest.send_replace(Some(Newest { p99, at }));
                }
            }
            Err(error) => {
                tracing::debug!(event = "latency_sample_lost", %error);
                batch.clear();
            }
        }
    }
}

/// The value that 99 of 100 do not exceed, from values in seconds; `None` if there are none.
fn p99(latencies: &mut [f64]) -> Option<Duration> {
    latencies.sort_by(f64::total_cmp);
    let place = (latencies.len() * 99).div_ceil(100).checked_sub(1)?;
    Duration::try_from_secs_f64(latencies[place]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_one_of_the_sample() {
        assert_eq!(p99(&mut []), None);
        assert_eq!(p99(&mut [0.25]), Some(Duration::from_millis(250)));
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(p99(&mut hundred), Some(Duration::from_secs(99)));
    }
}
