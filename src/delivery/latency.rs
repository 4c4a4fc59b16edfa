//! How old events are when they are written to a socket, by sample.
//!
//! An event's frame is the specification's and carries no time, so the time of its row is looked up
//! in the log afterwards: at most [`DELIVERIES_PER_SECOND`] live deliveries and
//! [`REPLAYS_PER_SECOND`] replayed events, one query a second for each, and none when there were
//! none. A delivery never waits for it; a sample that does not fit is dropped. Compares the
//! database's clock with this machine's.
//!
//! An event is replayed if it was sent to a client that came back with a cursor: its age is the time
//! that the client was away. Every other event is a live delivery, however late: also one that the
//! listener's catch-up has read from the log, and one that repairs the lag of a connection, for the
//! client was connected when the event was committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;
use crate::protocol::{Event, UserKey};
use crate::store::{Log, Logged};

/// Live deliveries that are looked up in one query.
const DELIVERIES_PER_SECOND: usize = 256;
/// Replayed events that are looked up in one query. They have a bound of their own, so that many
/// clients that come back at once leave the sample of live deliveries as it is.
const REPLAYS_PER_SECOND: usize = 32;

/// An event that was written to a socket.
#[derive(Debug)]
struct Delivery {
    id: i64,
    /// A bound on its transaction from below, which spares the query most of the log.
    xmin: u64,
    at: SystemTime,
}

/// An event that was sent to a client that came back.
#[derive(Debug)]
struct Replayed {
    user: UserKey,
    delivery: Delivery,
}

/// Takes deliveries from connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LatencySampler {
    deliveries: mpsc::Sender<Delivery>,
    replays: mpsc::Sender<Replayed>,
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
    replays: mpsc::Receiver<Replayed>,
    newest: watch::Sender<Option<Newest>>,
}

impl LatencySampler {
    /// A sampler, and the end of it that [`record`] reads.
    #[must_use]
    pub fn new() -> (Self, Samples) {
        let (deliveries, delivered) = mpsc::channel(DELIVERIES_PER_SECOND);
        let (replays, replayed) = mpsc::channel(REPLAYS_PER_SECOND);
        let (newest, _) = watch::channel(None);
        let recorded = Samples {
            deliveries: delivered,
            replays: replayed,
            newest: newest.clone(),
        };
        let sampler = Self {
            deliveries,
            replays,
            newest,
        };
        (sampler, recorded)
    }

    /// The 99th percentile of the last second's deliveries; `None` if there were none.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        let newest = *self.newest.borrow();
        newest
            .filter(|newest| newest.at.elapsed() <= NEWEST_AGE_MAX)
            .map(|newest| newest.p99)
    }

    /// The event has just been written to a socket, live.
    pub fn delivered(&self, event: &Event) {
        let (Some(id), Some(cursor)) = (event.id, &event.cursor) else {
            return;
        };
        // No clock is read for a delivery that does not fit into the sample.
        if let Ok(place) = self.deliveries.try_reserve() {
            place.send(Delivery {
                id,
                xmin: cursor.snapshot.xmin(),
                at: SystemTime::now(),
            });
        }
    }

    /// The event has just been queued for a client of this user that came back with a cursor.
    pub fn replayed(&self, user: UserKey, event: &Event) {
        let (Some(id), Some(cursor)) = (event.id, &event.cursor) else {
            return;
        };
        if let Ok(place) = self.replays.try_reserve() {
            let delivery = Delivery {
                id,
                xmin: cursor.snapshot.xmin(),
                at: SystemTime::now(),
            };
            place.send(Replayed { user, delivery });
        }
    }
}

/// Looks samples up and records them, for ever.
pub async fn record(samples: Samples, log: Log, metrics: Arc<Metrics>) {
    let Samples {
        deliveries,
        replays,
        newest,
    } = samples;
    tokio::join!(
        record_deliveries(deliveries, newest, &log, &metrics),
        record_replays(replays, &log, &metrics),
    );
}

async fn record_deliveries(
    mut deliveries: mpsc::Receiver<Delivery>,
    newest: watch::Sender<Option<Newest>>,
    log: &Log,
    metrics: &Metrics,
) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut batch = Vec::with_capacity(DELIVERIES_PER_SECOND);
    loop {
        second.tick().await;
        if deliveries
            .recv_many(&mut batch, DELIVERIES_PER_SECOND)
            .await
            == 0
        {
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
                let mut latencies = ages(&batch, times);
                for latency in &latencies {
                    metrics.delivery_latency.record(*latency);
                }
                if let Some(p99) = p99(&mut latencies) {
                    let at = Instant::now();
                    newest.send_replace(Some(Newest { p99, at }));
                }
            }
            Err(error) => tracing::debug!(event = "latency_sample_lost", %error),
        }
        batch.clear();
    }
}

async fn record_replays(mut replays: mpsc::Receiver<Replayed>, log: &Log, metrics: &Metrics) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut batch = Vec::with_capacity(REPLAYS_PER_SECOND);
    loop {
        second.tick().await;
        if replays.recv_many(&mut batch, REPLAYS_PER_SECOND).await == 0 {
            return;
        }
        let events: Vec<Logged> = batch
            .iter()
            .map(|Replayed { user, delivery }| Logged {
                user: *user,
                id: delivery.id,
                xmin: delivery.xmin,
            })
            .collect();
        match log.creation_times_of_each(&events).await {
            Ok(times) => {
                let batch: Vec<_> = batch.drain(..).map(|replayed| replayed.delivery).collect();
                for age in ages(&batch, times) {
                    metrics.replay_age.record(age);
                }
            }
            Err(error) => tracing::debug!(event = "latency_sample_lost", %error),
        }
        batch.clear();
    }
}

/// How old the events were, in seconds. `created` has the times of their rows by their ids; an event that it does
/// not have is left out.
fn ages(batch: &[Delivery], created: Vec<(i64, f64)>) -> Vec<f64> {
    let created: HashMap<i64, f64> = created.into_iter().collect();
    let age = |delivery: &Delivery| {
        let at = delivery.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = created.get(&delivery.id)?;
        Some((at.as_secs_f64() - created).max(0.0))
    };
    batch.iter().filter_map(age).collect()
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
