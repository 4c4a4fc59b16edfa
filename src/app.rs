//! The only wiring: builds every part, owns every task, and ends them in order.
//!
//! [`run`] is what the commands and the tests call alike.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError};
use crate::connection::Shared;
use crate::http::{self, Api};
use crate::hub::Hub;
use crate::latency::{self, LatencySampler};
use crate::listener::Listener;
use crate::log;
use crate::metrics::Metrics;

const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(15);
const QUEUE_USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// A query waits this long for a database that is away, then is given up until its next turn.
const POOL_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

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
    let pool = PgPoolOptions::new()
        .max_connections(config.database_pool_size)
        .acquire_timeout(POOL_ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.clone());
    let metrics = Arc::new(Metrics::new());
    let hub = Hub::new(config.user_channel_capacity as usize);
    let (latency, samples) = LatencySampler::new();
    let (notifications, listener_state) = Listener::new(options, hub.clone(), Arc::clone(&metrics));
    let stop = CancellationToken::new();
    let clients = TaskTracker::new();

    // These hold nothing that must be saved: they end by being dropped.
    let mut background = tokio::task::JoinSet::new();
    background.spawn(notifications.run());
    background.spawn(latency::record(samples, pool.clone(), Arc::clone(&metrics)));
    background.spawn(upkeep(Arc::clone(&metrics)));
    background.spawn(watch_queue(pool.clone(), Arc::clone(&metrics)));

    let api = Api {
        hub,
        shared: Arc::new(Shared {
            ping_interval: config.ping_interval(),
            pong_timeout: config.pong_timeout(),
            write_timeout: config.write_timeout(),
            frame_bytes_max: config.frame_bytes_max as usize,
            metrics,
            latency,
            stop: stop.clone(),
        }),
        places: Arc::new(Semaphore::new(config.connections_max as usize)),
        listener: listener_state,
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
    pool.close().await;
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

async fn watch_queue(pool: PgPool, metrics: Arc<Metrics>) {
    let mut turn = interval(QUEUE_USAGE_INTERVAL);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        match log::notification_queue_usage(&pool).await {
            Ok(ratio) => metrics.notification_queue_usage(ratio),
            Err(error) => tracing::debug!(event = "queue_usage_unknown", %error),
        }
    }
}
