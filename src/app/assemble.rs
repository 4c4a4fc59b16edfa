//! Builds the parts of the service from the settings, and starts the tasks of those that have one.

use std::sync::Arc;

use hushnet_websocket::{CloseQueue, SocketLimits};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::descriptors::Descriptors;
use super::error::RunError;
use super::maintenance;
use super::memory_budget::signatures_max;
use super::nodes::{self, Lead};
use super::supervisor::{Supervisor, Task};
use crate::config::{Config, DatabaseUrl, Ingest};
use crate::connection::{Clock, Drain, Shared, Timeouts};
use crate::delivery::{
    Bounds, Feed, HealthReport, Hub, LatencySampler, ReplayBuffer, Router, latency,
};
use crate::http::{Api, Console, SocketBound};
use crate::identity::Authenticator;
#[cfg(feature = "injector")]
use crate::ingest::injector;
use crate::ingest::{Barriers, Listener, auto, wake_lock};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::protocol::Channels;
use crate::store::Log;

/// What events pass on their way from the database to the connections.
struct Stream {
    log: Log,
    hub: Hub,
    replay_buffer: ReplayBuffer,
    metrics: Arc<Metrics>,
}

/// Builds every part, and starts the tasks.
pub(super) fn assemble(
    config: &Config,
    descriptors: Descriptors,
    supervisor: &mut Supervisor,
) -> Result<(Api, Option<Lead>), RunError> {
    let stream = Stream::new(config)?;
    let (feed, health, lead) = start_ingest(config, &stream, supervisor)?;
    let latency = start_latency(&stream, supervisor);
    start_maintenance(config, &stream, health.clone(), supervisor);
    let clock = Arc::new(Clock::default());
    let ticking = Arc::clone(&clock).run(stream.hub.clone());
    supervisor.spawn(Task::Clock, ticking);
    let auth = start_identity(config, &stream, supervisor)?;
    let shared = Shared {
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
        hub: stream.hub,
        replay_buffer: stream.replay_buffer,
        log: stream.log,
        limits: Arc::new(Limits::new(&config.limits, config.database_pool_size)),
        auth,
        feed,
        health,
        metrics: stream.metrics,
        latency,
        drain: Drain::default(),
    };
    let api = Api {
        shared: Arc::new(shared),
        socket_permits: Arc::new(Semaphore::new(descriptors.sockets)),
        socket_bound: if descriptors.is_short {
            SocketBound::Descriptors
        } else {
            SocketBound::Setting
        },
        token_in_query: config.identity.jwt_in_query,
        origins: config.edge.allowed_origins.clone(),
        any_host: config.serves_any_host(),
        metrics: config.serves_metrics_to_clients(),
        console: config.edge.console.unwrap_or_default().then_some(Console {
            auth: config.identity.auth,
            demo: config.edge.demo,
        }),
        tasks: TaskTracker::new(),
    };
    Ok((api, lead))
}

impl Stream {
    fn new(config: &Config) -> Result<Self, RunError> {
        let url = config.database()?;
        let bounds = Bounds {
            bytes_max: config.recent_bytes_max as usize,
            age_max: config.recent_age_max(),
        };
        let log = Log::new(url.options(), config.database_pool_size);
        let kinds = log.known_kinds();
        kinds.set_event_bytes_max(config.event_bytes_max as usize);
        let channels = Channels::with(config.channels.names());
        Ok(Self {
            metrics: Arc::new(Metrics::of(kinds, channels)),
            log,
            hub: Hub::new(config.user_channel_capacity as usize),
            replay_buffer: ReplayBuffer::new(bounds, Instant::now().into()),
        })
    }
}

/// Starts what turns commits into routed events. Returns how far routing has come, and where to report what is wrong.
#[cfg_attr(
    not(feature = "injector"),
    expect(
        clippy::unnecessary_wraps,
        reason = "the injector's address may be taken"
    )
)]
fn start_ingest(
    config: &Config,
    stream: &Stream,
    supervisor: &mut Supervisor,
) -> Result<(watch::Receiver<Feed>, HealthReport, Option<Lead>), RunError> {
    let (router, feed) = Router::new(
        stream.hub.clone(),
        stream.replay_buffer.clone(),
        Arc::clone(&stream.metrics),
        Instant::now().into(),
    );
    let health = router.health_report();
    let barriers = Arc::new(Barriers::new(
        stream.log.clone(),
        config.barrier_interval(),
        health.clone(),
        Arc::clone(&stream.metrics),
    ));
    let endpoint = config.replication_url.as_ref().map(DatabaseUrl::endpoint);
    let (listener, stream_task) = Listener::new(
        stream.log.clone(),
        Arc::clone(&barriers),
        router,
        Arc::clone(&stream.metrics),
        config.ingest,
        endpoint.clone(),
    );
    let node = nodes::start(
        config,
        &stream.log,
        &stream.hub,
        &health,
        &stream.metrics,
        supervisor,
    );
    let (node, lead) = node.unzip();
    let listener = listener.with_node(node);
    let stream_task = stream_task.with_lag_bytes_max(config.wal_lag_bytes_max);
    supervisor.spawn(Task::WalStream, stream_task.run());
    if let (None | Some(Ingest::Auto), Some(endpoint)) = (config.ingest, endpoint) {
        let choosing = auto::propose_wal_when_it_can_be_had(stream.log.clone(), endpoint);
        supervisor.spawn(Task::IngestChoice, choosing);
    }
    #[cfg(feature = "injector")]
    let listener = match config.inject {
        Some(address) => {
            let injected = injector::inject_from(address);
            let injected = injected.map_err(|cause| RunError::Listen { address, cause })?;
            listener.with_injected(injected)
        }
        None => listener,
    };
    let wake_lock = wake_lock::hold_while_wanted(stream.log.clone(), listener.wake_lock());
    supervisor.spawn(Task::WakeLock, wake_lock);
    supervisor.spawn(Task::Listener, listener.run());
    supervisor.spawn(Task::Barriers, async move { barriers.run().await });
    Ok((feed, health, lead))
}

fn start_latency(stream: &Stream, supervisor: &mut Supervisor) -> LatencySampler {
    let (latency, samples) = LatencySampler::new();
    let recording = latency::record(samples, stream.log.clone(), Arc::clone(&stream.metrics));
    supervisor.spawn(Task::LatencyRecorder, recording);
    latency
}

fn start_maintenance(
    config: &Config,
    stream: &Stream,
    health: HealthReport,
    supervisor: &mut Supervisor,
) {
    let upkeep = maintenance::upkeep(Arc::clone(&stream.metrics));
    supervisor.spawn(Task::MetricsUpkeep, upkeep);
    let watching = maintenance::watch_queue(
        stream.log.clone(),
        health.clone(),
        Arc::clone(&stream.metrics),
    );
    supervisor.spawn(Task::QueueWatch, watching);
    let watching = maintenance::watch_rights(stream.log.clone(), health.clone());
    supervisor.spawn(Task::RightsWatch, watching);
    let watching =
        maintenance::watch_triggers(stream.log.clone(), health, Arc::clone(&stream.metrics));
    supervisor.spawn(Task::TriggerWatch, watching);
    let metrics = Arc::clone(&stream.metrics);
    let retaining = maintenance::retain(stream.log.clone(), config.retention(), metrics);
    supervisor.spawn(Task::LogRetention, retaining);
}

fn start_identity(
    config: &Config,
    stream: &Stream,
    supervisor: &mut Supervisor,
) -> Result<Arc<Authenticator>, RunError> {
    let signatures_max = signatures_max(config);
    let auth = Authenticator::new(
        &config.identity,
        signatures_max,
        stream.log.devices(),
        stream.log.known_kinds(),
    )?;
    let auth = Arc::new(auth);
    let refreshing = Arc::clone(&auth);
    supervisor.spawn(Task::KeysRefresh, async move { refreshing.run().await });
    let confirming = Arc::clone(&auth);
    supervisor.spawn(Task::IdentityConfirmations, async move {
        confirming.run_confirmations().await;
    });
    Ok(auth)
}
