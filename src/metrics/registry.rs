//! Every series that the service exposes, declared once with its description.
//!
//! Handles are held, so that counting is no look-up; what happens with every event is one atomic addition
//! (`counts.rs`). Labels come from closed enums, never from a user or an address: the number of series is
//! fixed at start. There is no global recorder: each [`Metrics`] is its own, so that tests in one process do
//! not mix.
//!
//! Series without the prefix `hushnet_` are the process's own under their usual Prometheus names
//! (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`, …).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use super::counts::EventCounts;
use super::series::{ConnectionSeries, EventSeries, FeedSeries};
use crate::protocol::{AuthError, Channel, Closed, Event, EventKind, Limit, ResetReason};

/// Of every latency, in seconds.
const LATENCY_BUCKETS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Why a WebSocket was refused: the label `reason` of `hushnet_connections_rejected_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Missing or malformed `user_id` (400), or no WebSocket request (426).
    BadRequest,
    /// `connections_max` are open (503).
    ConnectionLimit,
    /// The client did not prove who it is (401, 403).
    Identity,
    /// The server is ending (503).
    Draining,
    /// A page of an origin that is not allowed (403).
    Origin,
    /// Too many, or too many at once (429).
    Limit(Limit),
}

impl Rejected {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [
            Self::BadRequest,
            Self::ConnectionLimit,
            Self::Identity,
            Self::Draining,
            Self::Origin,
        ]
        .into_iter()
        .chain(Limit::ALL.into_iter().map(Self::Limit))
    }

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::ConnectionLimit => "connection_limit",
            Self::Identity => "identity",
            Self::Draining => "draining",
            Self::Origin => "origin",
            Self::Limit(limit) => limit.code(),
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
    counts: EventCounts,
    connections: ConnectionSeries,
    events: EventSeries,
    feed: FeedSeries,
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
            recorder,
            process,
            backlog: WindowMaximum::default(),
            counts: EventCounts::default(),
            connections: ConnectionSeries::declare(),
            events: EventSeries::declare(),
            feed: FeedSeries::declare(),
        }
    }

    /// A WebSocket opened.
    pub fn connection_opened(&self) {
        self.connections.connections_opened.increment(1);
        self.connections.connections_open.increment(1);
    }

    /// A WebSocket that was counted as opened is gone.
    pub fn connection_closed(&self, reason: Closed) {
        self.connections.connections_open.decrement(1);
        count(&self.connections.connections_closed, &reason);
    }

    /// A request for a WebSocket was refused.
    pub fn connection_rejected(&self, reason: Rejected) {
        count(&self.connections.connections_rejected, &reason);
    }

    /// A client did not prove who it is, over HTTP or in a newer token.
    pub fn identity_refused(&self, reason: AuthError) {
        self.connections.identities_refused[reason as usize].increment(1);
    }

    /// An event came from PostgreSQL and had this many connections to go to.
    pub fn event_routed(&self, kind: EventKind, connections: usize) {
        let Some(kind) = kind.index() else { return };
        if connections == 0 {
            self.counts.absent.add(kind);
        } else {
            self.counts.present.add(kind);
        }
    }

    /// An event, or a reset, was written to a socket.
    pub fn event_sent(&self, event: &Event) {
        match (event.kind, event.kind.index()) {
            (EventKind::Reset(reason), _) => self.reset(reason),
            (_, Some(kind)) => self.counts.delivered.add(kind),
            (_, None) => {}
        }
    }

    /// One connection wrote this many events at once.
    pub fn backlog_drained(&self, events: u32) {
        self.backlog.observe(events.into());
    }

    /// A sampled event's age when it was written to a socket.
    pub fn delivery_latency(&self, seconds: f64) {
        self.events.delivery_latency.record(seconds);
    }

    /// A client was sent this many events that it had missed.
    pub fn replayed(&self, cause: ReplayCause, source: ReplaySource, events: u64) {
        self.events.replays[cause as usize][source as usize].increment(1);
        self.events.events_replayed.increment(events);
    }

    /// A client was told to fetch its state anew.
    pub fn reset(&self, reason: ResetReason) {
        self.events.resets[reason as usize].increment(1);
    }

    /// An event was met again and dropped.
    pub fn event_repeated(&self) {
        self.events.events_repeated.increment(1);
    }

    /// Events were read from the log for everybody.
    pub fn events_caught_up(&self, events: usize) {
        self.events.events_caught_up.increment(events as u64);
    }

    /// Everything committed is being routed, or not.
    pub fn feed_live(&self, live: bool) {
        self.feed.feed_live.set(f64::from(u8::from(live)));
    }

    /// A barrier committed this long after it was sent.
    pub fn barrier_committed(&self, after: Duration) {
        self.feed.barrier_commit.record(after.as_secs_f64());
    }

    /// A barrier was heard this long after it was sent.
    pub fn barrier_returned(&self, after: Duration) {
        self.feed.barrier_round_trip.record(after.as_secs_f64());
    }

    /// A barrier waits to commit although the database answers, or does not.
    pub fn barrier_uncommitted(&self, uncommitted: bool) {
        self.feed
            .barrier_uncommitted
            .set(f64::from(u8::from(uncommitted)));
    }

    /// A notification was no event.
    pub fn notification_malformed(&self, channel: Channel) {
        self.events.notifications_malformed[channel as usize].increment(1);
    }

    /// A connection missed this many events.
    pub fn lagged(&self, events: u64) {
        self.connections.lags.increment(1);
        self.connections.lagged_events.increment(events);
    }

    /// The listener hears notifications, or no longer does.
    pub fn listener_connected(&self, connected: bool) {
        self.feed
            .listener_connected
            .set(f64::from(u8::from(connected)));
    }

    /// The listener lost its connection.
    pub fn listener_lost(&self) {
        self.feed.listener_reconnects.increment(1);
    }

    /// PostgreSQL's answer to `pg_notification_queue_usage()`.
    pub fn notification_queue_usage(&self, ratio: f64) {
        self.feed.notification_queue_usage.set(ratio);
    }

    /// The exposition, in Prometheus's text format 0.0.4.
    #[must_use]
    pub fn render(&self, users_connected: usize) -> String {
        self.connections.users_connected.set(users_connected as f64);
        self.connections
            .channel_backlog
            .set(self.backlog.get() as f64);
        self.counts.tell(&self.events);
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

fn count<R: PartialEq>(counters: &[(R, Counter)], reason: &R) {
    if let Some((_, counter)) = counters.iter().find(|(found, _)| found == reason) {
        counter.increment(1);
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
        metrics.connection_closed(Closed::ByServer(crate::protocol::CloseCode::IdleTimeout));
        metrics.event_routed(EventKind::Device, 0);
        metrics.event_routed(EventKind::Device, 2);
        metrics.delivery_latency(0.0004);
        metrics.backlog_drained(5);
        metrics.upkeep();
        let text = metrics.render(1);
        for line in [
            "hushnet_connections_open 1",
            "hushnet_users_connected 1",
            "hushnet_connections_closed_total{reason=\"idle_timeout\"} 1",
            "hushnet_events_received_total{kind=\"device\"} 2",
            "hushnet_events_absent_total{kind=\"device\"} 1",
            "hushnet_events_received_total{kind=\"message\"} 0",
            "hushnet_channel_backlog_max 5",
            "hushnet_delivery_latency_seconds_bucket{le=\"0.0005\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        metrics.upkeep();
        assert!(metrics.render(0).contains("hushnet_channel_backlog_max 0"));
    }
}
