//! Every series that the service exposes, declared once with its description.
//!
//! Handles are held, so that counting an event is one atomic addition and no look-up. Labels come
//! from closed enums, never from a user or an address: the number of series is fixed at start. There
//! is no global recorder: each [`Metrics`] is its own, so that tests in one process do not mix.
//!
//! Series without the prefix `hushnet_` are the process's own under their usual Prometheus names
//! (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`, …).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::wire::{Channel, CloseCode, Event, EventKind, ResetReason};

/// Of every latency, in seconds.
const LATENCY_BUCKETS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const DELIVERY_LATENCY: &str = "hushnet_delivery_latency_seconds";
const BARRIER_COMMIT: &str = "hushnet_barrier_commit_seconds";
const BARRIER_ROUND_TRIP: &str = "hushnet_barrier_round_trip_seconds";

/// Why a connection ended: the label `reason` of `hushnet_connections_closed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client closed it, with a closing handshake or by just going.
    ByClient,
    /// The network broke it.
    ByNetwork,
    /// The server closed it with this code.
    ByServer(CloseCode),
}

impl Closed {
    fn all() -> impl Iterator<Item = Self> {
        [Self::ByClient, Self::ByNetwork].into_iter().chain(
            CloseCode::ALL
                .into_iter()
                .filter(|code| *code != CloseCode::Normal)
                .map(Self::ByServer),
        )
    }

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByClient => "client",
            Self::ByNetwork => "network",
            Self::ByServer(code) => code.reason(),
        }
    }
}

/// Why a WebSocket was refused: the label `reason` of `hushnet_connections_rejected_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Missing or malformed `user_id` (400), or no WebSocket request (426).
    BadRequest,
    /// `connections_max` are open (503).
    ConnectionLimit,
}

impl Rejected {
    const ALL: [Self; 2] = [Self::BadRequest, Self::ConnectionLimit];

    fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::ConnectionLimit => "connection_limit",
        }
    }
}

/// Where missed events were read: the label `source` of `hushnet_replays_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaySource {
    /// The recent events that this process holds.
    Memory,
    /// `realtime.events`.
    Log,
}

/// Why missed events were read: the label `cause` of `hushnet_replays_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayCause {
    /// A client came back with a cursor.
    Resume,
    /// A connection fell behind.
    Lag,
}

/// The handles of every series. Shared by everything that counts.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    process: metrics_process::Collector,
    backlog: WindowMaximum,
    connections_open: Gauge,
    users_connected: Gauge,
    connections_opened: Counter,
    connections_closed: Vec<(Closed, Counter)>,
    connections_rejected: [Counter; 2],
    events_received: [Counter; 3],
    events_delivered: [Counter; 3],
    events_absent: [Counter; 3],
    notifications_malformed: [Counter; 3],
    lags: Counter,
    lagged_events: Counter,
    channel_backlog: Gauge,
    delivery_latency: Histogram,
    replays: [[Counter; 2]; 2],
    events_replayed: Counter,
    resets: [Counter; 5],
    events_repeated: Counter,
    events_caught_up: Counter,
    feed_live: Gauge,
    barrier_commit: Histogram,
    barrier_round_trip: Histogram,
    barrier_uncommitted: Gauge,
    listener_connected: Gauge,
    listener_reconnects: Counter,
    notification_queue_usage: Gauge,
}

impl Metrics {
    /// Declares every series, at zero.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
            .unwrap_or_else(|error| unreachable!("the buckets are not empty: {error}"))
            .build_recorder();
        let recorder = Arc::new(recorder);
        with_local_recorder(&*recorder, || Self::declare(Arc::clone(&recorder)))
    }

    fn declare(recorder: Arc<PrometheusRecorder>) -> Self {
        let process = metrics_process::Collector::default();
        process.describe();
        describe_gauge!(
            "hushnet_build_info",
            "Always 1; the label tells the version."
        );
        gauge!("hushnet_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
        Self {
            process,
            backlog: WindowMaximum::default(),
            connections_open: new_gauge("hushnet_connections_open", "Open WebSockets."),
            users_connected: new_gauge(
                "hushnet_users_connected",
                "Users with at least one open WebSocket.",
            ),
            connections_opened: new_counter(
                "hushnet_connections_opened_total",
                "WebSockets opened.",
            ),
            connections_closed: Closed::all()
                .map(|reason| {
                    let counter = labelled(
                        "hushnet_connections_closed_total",
                        "WebSockets closed, by reason: client, network, or the close code's name.",
                        "reason",
                        reason.as_str(),
                    );
                    (reason, counter)
                })
                .collect(),
            connections_rejected: Rejected::ALL.map(|reason| {
                labelled(
                    "hushnet_connections_rejected_total",
                    "Requests for a WebSocket that were refused, by reason.",
                    "reason",
                    reason.as_str(),
                )
            }),
            events_received: by_kind(
                "hushnet_events_received_total",
                "Events that came from PostgreSQL, by kind.",
            ),
            events_delivered: by_kind(
                "hushnet_events_delivered_total",
                "Events written to a socket, once for each connection, by kind.",
            ),
            events_absent: by_kind(
                "hushnet_events_absent_total",
                "Events whose user had no connection here, by kind.",
            ),
            notifications_malformed: Channel::ALL.map(|channel| {
                labelled(
                    "hushnet_notifications_malformed_total",
                    "Notifications that were no event and were dropped, by channel.",
                    "channel",
                    channel.as_str(),
                )
            }),
            lags: new_counter(
                "hushnet_lags_total",
                "Times that a connection fell behind by more than its user's channel holds.",
            ),
            lagged_events: new_counter(
                "hushnet_lagged_events_total",
                "Events that connections missed by falling behind.",
            ),
            channel_backlog: new_gauge(
                "hushnet_channel_backlog_max",
                "Most events found waiting for one connection, over the last 15 to 30 seconds.",
            ),
            delivery_latency: described_histogram(
                DELIVERY_LATENCY,
                "From the creation of the event's row to the write to a socket, in seconds; a sample \
                 of at most 256 deliveries a second.",
            ),
            replays: ["resume", "lag"].map(|cause| {
                ["memory", "log"].map(|source| {
                    describe_counter!(
                        "hushnet_replays_total",
                        "Times that a client was sent what it had missed, by cause (resume, lag) and \
                         by source (memory, log); one from the log costs a query."
                    );
                    counter!("hushnet_replays_total", "cause" => cause, "source" => source)
                })
            }),
            events_replayed: new_counter(
                "hushnet_events_replayed_total",
                "Events sent to clients that had missed them.",
            ),
            resets: ResetReason::ALL.map(|reason| {
                labelled(
                    "hushnet_resets_total",
                    "Clients that were told to fetch their state anew, by reason.",
                    "reason",
                    reason.as_str(),
                )
            }),
            events_repeated: new_counter(
                "hushnet_events_repeated_total",
                "Events that were met again in the log or among the notifications, and dropped.",
            ),
            events_caught_up: new_counter(
                "hushnet_events_caught_up_total",
                "Events read from the log because their notification was lost or none was sent.",
            ),
            feed_live: new_gauge(
                "hushnet_feed_live",
                "1 while everything committed is routed, 0 while the listener is away or catching up.",
            ),
            barrier_commit: described_histogram(
                BARRIER_COMMIT,
                "From sending a barrier to its commit, in seconds. It waits for the lock that all \
                 notifying commits share: when it is slow, ingest = adaptive helps the application.",
            ),
            barrier_round_trip: described_histogram(
                BARRIER_ROUND_TRIP,
                "From sending a barrier to hearing it, in seconds.",
            ),
            barrier_uncommitted: new_gauge(
                "hushnet_barrier_uncommitted",
                "1 while a barrier waits to commit although the database answers, else 0.",
            ),
            listener_connected: new_gauge(
                "hushnet_listener_connected",
                "1 while the listener hears PostgreSQL's notifications, else 0.",
            ),
            listener_reconnects: new_counter(
                "hushnet_listener_reconnects_total",
                "Times that the listener lost its connection to PostgreSQL.",
            ),
            notification_queue_usage: new_gauge(
                "hushnet_notification_queue_usage_ratio",
                "Share of PostgreSQL's notification queue in use, 0 to 1; when it is full, every \
                 transaction that notifies fails.",
            ),
            recorder,
        }
    }

    /// A WebSocket opened.
    pub fn connection_opened(&self) {
        self.connections_opened.increment(1);
        self.connections_open.increment(1);
    }

    /// A WebSocket that was counted as opened is gone.
    pub fn connection_closed(&self, reason: Closed) {
        self.connections_open.decrement(1);
        if let Some((_, counter)) = self.connections_closed.iter().find(|(r, _)| *r == reason) {
            counter.increment(1);
        }
    }

    /// A request for a WebSocket was refused.
    pub fn connection_rejected(&self, reason: Rejected) {
        self.connections_rejected[reason as usize].increment(1);
    }

    /// An event came from PostgreSQL and had this many connections to go to.
    pub fn event_routed(&self, kind: EventKind, connections: usize) {
        self.events_received[kind as usize].increment(1);
        if connections == 0 {
            self.events_absent[kind as usize].increment(1);
        }
    }

    /// An event was written to a socket.
    pub fn event_sent(&self, event: &Event) {
        match event.kind {
            EventKind::Reset => {}
            kind => self.events_delivered[kind as usize].increment(1),
        }
    }

    /// One connection found this many events waiting when it woke.
    pub fn backlog_drained(&self, events: usize) {
        self.backlog.observe(events as u64);
    }

    /// A sampled event's age when it was written to a socket.
    pub fn delivery_latency(&self, seconds: f64) {
        self.delivery_latency.record(seconds);
    }

    /// A client was sent this many events that it had missed.
    pub fn replayed(&self, cause: ReplayCause, source: ReplaySource, events: u64) {
        self.replays[cause as usize][source as usize].increment(1);
        self.events_replayed.increment(events);
    }

    /// A client was told to fetch its state anew.
    pub fn reset(&self, reason: ResetReason) {
        self.resets[reason as usize].increment(1);
    }

    /// An event was met again and dropped.
    pub fn event_repeated(&self) {
        self.events_repeated.increment(1);
    }

    /// Events were read from the log for everybody.
    pub fn events_caught_up(&self, events: usize) {
        self.events_caught_up.increment(events as u64);
    }

    /// Everything committed is being routed, or not.
    pub fn feed_live(&self, live: bool) {
        self.feed_live.set(f64::from(u8::from(live)));
    }

    /// A barrier committed this long after it was sent.
    pub fn barrier_committed(&self, after: Duration) {
        self.barrier_commit.record(after.as_secs_f64());
    }

    /// A barrier was heard this long after it was sent.
    pub fn barrier_returned(&self, after: Duration) {
        self.barrier_round_trip.record(after.as_secs_f64());
    }

    /// A barrier waits to commit although the database answers, or does not.
    pub fn barrier_uncommitted(&self, uncommitted: bool) {
        self.barrier_uncommitted
            .set(f64::from(u8::from(uncommitted)));
    }

    /// A notification was no event.
    pub fn notification_malformed(&self, channel: Channel) {
        self.notifications_malformed[channel as usize].increment(1);
    }

    /// A connection missed this many events.
    pub fn lagged(&self, events: u64) {
        self.lags.increment(1);
        self.lagged_events.increment(events);
    }

    /// The listener hears notifications, or no longer does.
    pub fn listener_connected(&self, connected: bool) {
        self.listener_connected.set(f64::from(u8::from(connected)));
    }

    /// The listener lost its connection.
    pub fn listener_lost(&self) {
        self.listener_reconnects.increment(1);
    }

    /// PostgreSQL's answer to `pg_notification_queue_usage()`.
    pub fn notification_queue_usage(&self, ratio: f64) {
        self.notification_queue_usage.set(ratio);
    }

    /// The exposition, in Prometheus's text format 0.0.4.
    #[must_use]
    pub fn render(&self, users_connected: usize) -> String {
        self.users_connected.set(users_connected as f64);
        self.channel_backlog.set(self.backlog.get() as f64);
        with_local_recorder(&*self.recorder, || self.process.collect());
        self.recorder.handle().render()
    }

    /// To be called every 15 seconds: folds what histograms have recorded, which would otherwise
    /// grow until the next scrape, and moves the backlog's window on.
    pub fn upkeep(&self) {
        self.recorder.handle().run_upkeep();
        self.backlog.turn();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// The largest value observed in the current window or the one before it, so that every scraper
/// sees a peak, however many there are.
#[derive(Debug, Default)]
struct WindowMaximum {
    current: AtomicU64,
    previous: AtomicU64,
}

impl WindowMaximum {
    fn observe(&self, value: u64) {
        // Reading first keeps the line shared between cores: a new maximum is rare.
        if value > self.current.load(Relaxed) {
            self.current.fetch_max(value, Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.current.load(Relaxed).max(self.previous.load(Relaxed))
    }

    fn turn(&self) {
        self.previous.store(self.current.swap(0, Relaxed), Relaxed);
    }
}

fn new_gauge(name: &'static str, description: &'static str) -> Gauge {
    describe_gauge!(name, description);
    let gauge = gauge!(name);
    gauge.set(0);
    gauge
}

fn described_histogram(name: &'static str, description: &'static str) -> Histogram {
    describe_histogram!(name, description);
    histogram!(name)
}

fn new_counter(name: &'static str, description: &'static str) -> Counter {
    describe_counter!(name, description);
    counter!(name)
}

fn labelled(
    name: &'static str,
    description: &'static str,
    label: &'static str,
    value: &'static str,
) -> Counter {
    describe_counter!(name, description);
    counter!(name, label => value)
}

fn by_kind(name: &'static str, description: &'static str) -> [Counter; 3] {
    EventKind::ALL.map(|kind| labelled(name, description, "kind", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_has_happened() {
        let text = Metrics::new().render(0);
        for line in [
            "hushnet_connections_open 0",
            "hushnet_connections_closed_total{reason=\"slow_consumer\"} 0",
            "hushnet_events_received_total{kind=\"session\"} 0",
            "hushnet_notifications_malformed_total{channel=\"devices_channel\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn what_is_counted_is_exposed() {
        let metrics = Metrics::new();
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed(Closed::ByServer(CloseCode::IdleTimeout));
        metrics.event_routed(EventKind::Device, 0);
        metrics.delivery_latency(0.0004);
        metrics.backlog_drained(5);
        metrics.upkeep();
        let text = metrics.render(1);
        for line in [
            "hushnet_connections_open 1",
            "hushnet_users_connected 1",
            "hushnet_connections_closed_total{reason=\"idle_timeout\"} 1",
            "hushnet_events_absent_total{kind=\"device\"} 1",
            "hushnet_channel_backlog_max 5",
            "hushnet_delivery_latency_seconds_bucket{le=\"0.0005\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        metrics.upkeep();
        assert!(metrics.render(0).contains("hushnet_channel_backlog_max 0"));
    }
}
