//! The only wiring: builds every part, owns every task, and ends them in order.
//!
//! [`run`] is what the commands and the tests call alike.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hushnet_websocket::{CloseQueue, SocketLimits};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError};
use crate::connection::{Clock, Drain, Shared, Timeouts};
use crate::delivery::{Bounds, Hub, LatencySampler, ReplayBuffer, Router, latency};
use crate::edge::{self, Accepting, Tls};
use crate::http::{self, Api, Console};
use crate::identity::{Authenticator, Tokens};
#[cfg(feature = "injector")]
use crate::ingest::injector;
use crate::ingest::{Barriers, Listener, wake_lock};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::protocol::Signal;
use crate::store::Log;

const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(15);
const QUEUE_USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// Share of PostgreSQL's notification queue at which it is time to look why.
const QUEUE_USAGE_WARNED: f64 = 0.5;
/// A client that comes back signs for its connection and for the reads of its state.
const SIGNATURES_PER_CONNECTION: usize = 4;
/// Signatures that are remembered beyond those.
const SIGNATURES_SPARE: usize = 65_536;
/// Beyond the deadline, for requests that are being answered.
const REQUESTS_GRACE: Duration = Duration::from_millis(500);
const RETENTION_INTERVAL: Duration = Duration::from_mins(1);

/// Why the service could not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is missing or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address besides the clients' cannot be served on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The setting `metrics_listen`, or a benchmark's.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// Some tasks had not ended when the time was over; they were aborted.
    #[error("{tasks} tasks had not ended {deadline_ms} ms after the signal to stop")]
    DrainDeadline {
        /// How many.
        tasks: usize,
        /// The setting `drain_deadline_ms`.
        deadline_ms: u32,
    },
}

/// Whether the settings allow a start: what is missing, contradicts another or cannot be read is found
/// before anything is begun.
///
/// # Errors
/// [`ConfigError`] that says what to change.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check_exposure()?;
    if config.identity.auth.takes_tokens() {
        Tokens::new(&config.identity)?;
    }
    Tls::new(&config.edge).map(drop)
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
    check(&config)?;
    // These hold nothing that must be saved: they end by being dropped.
    let mut background = JoinSet::new();
    let api = assemble(&config, &mut background)?;
    let tls = Tls::new(&config.edge)?.map(Arc::new);
    if let Some(tls) = tls.clone() {
        background.spawn(async move { tls.reload_on_hangup().await });
    }
    let accepting = Accepting {
        connections_max: config.limits.connections_max as usize,
        request_head_timeout: config.request_head_timeout(),
        proxy_protocol: config.edge.proxy_protocol,
        trusted_proxies: config.limits.trusted_proxies.clone(),
        tls,
        limits: Arc::clone(&api.shared.limits),
        metrics: Arc::clone(&api.shared.metrics),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let with_metrics = config.edge.metrics_listen.is_none();
    let routes = http::routes(&api, with_metrics);
    let serving = edge::serve(listener, routes, accepting.clone());
    accepting.tasks.spawn(serving);
    if let Some(address) = config.edge.metrics_listen {
        let listener = edge::bind(address).map_err(|cause| RunError::Listen { address, cause })?;
        let operators = Accepting {
            connections_max: 0,
            proxy_protocol: false,
            tls: None,
            ..accepting.clone()
        };
        let serving = edge::serve(listener, http::operator_routes(&api), operators);
        accepting.tasks.spawn(serving);
    }

    shutdown.await;
    let left = drain(&config, &api, &accepting).await;
    background.shutdown().await;
    // A query whose connection has gone silent would not end.
    let closing = api.shared.log.close();
    let _ = tokio::time::timeout(config.drain_deadline(), closing).await;
    if left > 0 {
        return Err(RunError::DrainDeadline {
            tasks: left,
            deadline_ms: config.drain_deadline_ms,
        });
    }
    Ok(())
}

/// Builds every part, and starts those that run by themselves.
fn assemble(config: &Config, background: &mut JoinSet<()>) -> Result<Api, RunError> {
    let options = config.database()?.options();
    let log = Log::new(options.clone(), config.database_pool_size);
    let metrics = Arc::new(Metrics::new());
    let hub = Hub::new(config.user_channel_capacity as usize);
    let bounds = Bounds {
        bytes_max: config.recent_bytes_max as usize,
        age_max: config.recent_age_max(),
    };
    let replay_buffer = ReplayBuffer::new(bounds, Instant::now().into());
    let (latency, samples) = LatencySampler::new();
    let interval = config.barrier_interval();
    let (router, feed) = Router::new(
        hub.clone(),
        replay_buffer.clone(),
        Arc::clone(&metrics),
        Instant::now().into(),
    );
    let barriers = Barriers::new(
        log.clone(),
        interval,
        router.commit_health(),
        Arc::clone(&metrics),
    );
    let barriers = Arc::new(barriers);
    let listener = Listener::new(
        options.clone(),
        log.clone(),
        Arc::clone(&barriers),
        router,
        Arc::clone(&metrics),
        config.ingest,
    );
    #[cfg(feature = "injector")]
    let listener = match config.inject {
        Some(address) => {
            let injected = injector::inject_from(address);
            let injected = injected.map_err(|cause| RunError::Listen { address, cause })?;
            listener.with_injected(injected)
        }
        None => listener,
    };
    let auth = Authenticator::new(&config.identity, signatures_max(config), log.devices())?;
    let auth = Arc::new(auth);

    background.spawn(wake_lock::hold_while_wanted(options, listener.wake_lock()));
    background.spawn(listener.run());
    background.spawn(async move { barriers.run().await });
    background.spawn(latency::record(samples, log.clone(), Arc::clone(&metrics)));
    let clock = Arc::new(Clock::default());
    background.spawn(Arc::clone(&clock).run(hub.clone()));
    background.spawn(upkeep(Arc::clone(&metrics)));
    background.spawn(watch_queue(log.clone(), Arc::clone(&metrics)));
    background.spawn(retain(log.clone(), config.retention()));

    let shared = Arc::new(Shared {
        timeouts: Timeouts {
            ping_interval: config.ping_interval(),
            pong_timeout: config.pong_timeout(),
            write_timeout: config.write_timeout(),
        },
        client_frames_per_second: config.limits.client_frames_per_second,
        socket_limits: SocketLimits {
            frame_bytes_max: config.limits.frame_bytes_max as usize,
            write_buffer_bytes_max: config.limits.write_buffer_bytes_max as usize,
        },
        close_queue: CloseQueue::new(Handle::current().metrics().num_workers()),
        clock,
        hub,
        replay_buffer,
        log,
        limits: Arc::new(Limits::new(&config.limits)),
        auth,
        feed,
        metrics,
        latency,
        drain: Drain::default(),
    });
    background.spawn({
        let shared = Arc::clone(&shared);
        async move { shared.auth.run().await }
    });
    Ok(Api {
        shared,
        socket_permits: Arc::new(Semaphore::new(config.limits.connections_max as usize)),
        token_in_query: config.identity.jwt_in_query,
        origins: config.edge.allowed_origins.clone(),
        console: config.edge.console.unwrap_or_default().then_some(Console {
            auth: config.identity.auth,
            demo: config.edge.demo,
        }),
        tasks: TaskTracker::new(),
    })
}

/// Signatures that are remembered as used.
pub(crate) fn signatures_max(config: &Config) -> usize {
    SIGNATURES_PER_CONNECTION * config.limits.connections_max as usize + SIGNATURES_SPARE
}

/// Sends every client away in its time, then ends the requests. Returns how many tasks are left over.
async fn drain(config: &Config, api: &Api, accepting: &Accepting) -> usize {
    let (clients, requests) = (&api.tasks, &accepting.tasks);
    let deadline = config.drain_deadline();
    let (open, rate) = (clients.len(), config.drain_clients_per_second);
    let takes = api.shared.drain.begin(open, rate, deadline);
    api.shared.hub.publish_to_all(&Arc::new(Signal::Wake));
    tracing::info!(
        event = "draining",
        clients = open,
        takes_ms = takes.as_millis()
    );
    clients.close();
    requests.close();
    let over = Instant::now() + deadline;
    // New clients are told to go elsewhere until the last one has left.
    let _ = tokio::time::timeout_at(over, clients.wait()).await;
    accepting.stop.cancel();
    let _ = tokio::time::timeout_at(over + REQUESTS_GRACE, requests.wait()).await;
    clients.len() + requests.len()
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
