//! The only wiring: builds every part, owns every task, and ends them in order.
//!
//! [`run`] is what the commands and the tests call alike.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::barrier::Barriers;
use crate::config::{Config, ConfigError};
use crate::connection::Shared;
use crate::doorbell;
use crate::http::{self, Api};
use crate::hub::Hub;
use crate::latency::{self, LatencySampler};
use crate::listener::Listener;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::recent::{Bounds, Recent};
use crate::router::Router;

const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(15);
const QUEUE_USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// Share of PostgreSQL's notification queue at which it is time to look why.
const QUEUE_USAGE_WARNED: f64 = 0.5;
const RETENTION_INTERVAL: Duration = Duration::from_mins(1);

/// Why the service could not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is missing or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Some tasks had not ended when the time was over; they were aborted.
    #[error("{tasks} tasks had not ended {deadline_ms} ms after the signal to stop")]
    DrainDeadline {
        /// How many.
        tasks: usize,
        /// The setting `drain_deadline_ms`.
        deadline_ms: u32,
    },
}

/// Serves on `listener` until `shutdown` is ready, then closes every connection and returns when all
/// tasks have ended. The database need not be there yet.
///
/// # Errors
/// [`RunError`] when the settings do not allow a start, or the drain takes too long.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    config.check_exposure()?;
    let options = config.database()?.options();
    let log = Log::new(options.clone(), config.database_pool_size);
    let metrics = Arc::new(Metrics::new());
    let hub = Hub::new(config.user_channel_capacity as usize);
    let recent = Recent::new(Bounds {
        bytes_max: config.recent_bytes_max as usize,
        age_max: config.recent_age_max(),
    });
    let (latency, samples) = LatencySampler::new();
    let barriers = Arc::new(Barriers::new(
        log.clone(),
        config.barrier_interval(),
        Arc::clone(&metrics),
    ));
    let (router, feed) = Router::new(hub.clone(), recent.clone(), Arc::clone(&metrics));
    let listener_task = Listener::new(
        options.clone(),
        log.clone(),
        Arc::clone(&barriers),
        router,
        Arc::clone(&metrics),
        config.ingest,
    );
    let stop = CancellationToken::new();
    let clients = TaskTracker::new();

    // These hold nothing that must be saved: they end by being dropped.
    let mut background = tokio::task::JoinSet::new();
    background.spawn(doorbell::attend(options, listener_task.doorbell()));
    background.spawn(listener_task.run());
    background.spawn({
        let barriers = Arc::clone(&barriers);
        async move { barriers.run().await }
    });
    background.spawn(latency::record(samples, log.clone(), Arc::clone(&metrics)));
    background.spawn(upkeep(Arc::clone(&metrics)));
    background.spawn(watch_queue(log.clone(), Arc::clone(&metrics)));
    background.spawn(retain(log.clone(), config.retention()));

    let api = Api {
        shared: Arc::new(Shared {
            ping_interval: config.ping_interval(),
            pong_timeout: config.pong_timeout(),
            write_timeout: config.write_timeout(),
            frame_bytes_max: config.frame_bytes_max as usize,
            hub,
            recent,
            log: log.clone(),
            feed,
            metrics,
            latency,
            stop: stop.clone(),
        }),
        places: Arc::new(Semaphore::new(config.connections_max as usize)),
        barriers,
        tasks: clients.clone(),
    };
    clients.spawn(http::serve(
        listener,
        api,
        config.connections_max as usize,
        config.request_head_timeout(),
    ));

    shutdown.await;
    tracing::info!(event = "draining", tasks = clients.len());
    stop.cancel();
    clients.close();
    let drained = tokio::time::timeout(config.drain_deadline(), clients.wait()).await;
    background.shutdown().await;
    // A query whose connection has gone silent would not end.
    let _ = tokio::time::timeout(config.drain_deadline(), log.pool().close()).await;
    drained.map_err(|_| RunError::DrainDeadline {
        tasks: clients.len(),
        deadline_ms: config.drain_deadline_ms,
    })
}

async fn upkeep(metrics: Arc<Metrics>) {
    let mut turn = interval(METRICS_UPKEEP_INTERVAL);
    loop {
        turn.tick().await;
        metrics.upkeep();
    }
}

async fn watch_queue(log: Log, metrics: Arc<Metrics>) {
    let mut turn = interval(QUEUE_USAGE_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        match log.notification_queue_usage().await {
            Ok(ratio) => {
                metrics.notification_queue_usage(ratio);
                if ratio >= QUEUE_USAGE_WARNED {
                    tracing::warn!(event = "notification_queue_filling", ratio);
                }
            }
            Err(error) => tracing::debug!(event = "queue_usage_unknown", %error),
        }
    }
}

/// Makes the log's partitions ahead and drops the old ones. Another server may be doing it; a failure
/// (a lock that was not to be had, a database that is away) is mended by the next turn.
async fn retain(log: Log, retention: Duration) {
    let mut turn = interval(RETENTION_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        match log.maintain(retention).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(event = "log_partitions_dropped", dropped),
            Err(error) => tracing::debug!(event = "log_not_maintained", %error),
        }
    }
}
