//! The declarations of all series: help text, field, kind, name in the exposition, names of the labels.

use std::fmt;
use std::sync::Arc;

use hushnet_bus::{BusCause, Dropped};
use metrics::{Gauge, Histogram};

use super::declare::declare_metrics;
use super::recorder::Recorder;
use super::series::{Declaration, Series};
use super::{Age, BuildInfo, Counter, CounterBy, CounterByNumber, Flag, FlagBy};
use super::{Level, LogLinesDropped, WindowMaximum};
use super::{Panicked, Rejected, Replay, ReplayCause, ReplaySource};
use crate::protocol::{AuthError, CHANNELS_MAX, Channel, Channels, Closed, DatabaseFault};
use crate::protocol::{KINDS_MAX, Kind, Kinds};
use crate::protocol::{
    ReadinessReason, RepairCause, ResetReason, Signal, SkippedRow, StreamFault, TriggerFault,
};

/// Numbers of kinds, that of all unknown ones included.
const KINDS: usize = KINDS_MAX + 1;

declare_metrics! {
    /// Always 1; the label tells the version.
    build_info: BuildInfo = "hushnet_build_info" by "version";

    /// Lines of the log that nobody took: the buffer was full, or standard error is closed.
    log_lines_dropped: LogLinesDropped = "hushnet_log_lines_dropped_total";

    // Connections: opened, refused, closed, and how far they fall behind.

    /// Open WebSockets.
    connections_open: Level = "hushnet_connections_open";
    /// Users with at least one open WebSocket.
    users_connected: Gauge = "hushnet_users_connected";
    /// WebSockets opened.
    connections_opened: Counter = "hushnet_connections_opened_total";
    /// WebSockets closed, by reason: client, network, or the close code's name.
    connections_closed: CounterBy<Closed> = "hushnet_connections_closed_total" by "reason";
    /// Requests for a WebSocket that were refused, by reason.
    connections_rejected: CounterBy<Rejected> = "hushnet_connections_rejected_total" by "reason";
    /// Clients that did not prove who they are, by the answer's code.
    identities_refused: CounterBy<AuthError> = "hushnet_identities_refused_total" by "reason";
    /// Times that a connection fell behind by more than its user's channel holds.
    lags: Counter = "hushnet_lags_total";
    /// Events that connections missed by falling behind.
    lagged_events: Counter = "hushnet_lagged_events_total";
    /// Panics that ended one client's connection or request; a fault of the service.
    panics: CounterBy<Panicked> = "hushnet_panics_total" by "where";
    /// Most events found waiting for one connection, over the last 15 to 30 seconds. What is replayed to a client
    /// that came back does not count.
    channel_backlog: WindowMaximum = "hushnet_channel_backlog_max";

    // Events, from PostgreSQL to the sockets.

    /// Events that came from PostgreSQL, by kind.
    events_received: CounterByNumber<KINDS> = "hushnet_events_received_total" by "kind";
    /// Events written to a socket, once for each connection, by kind.
    events_delivered: CounterByNumber<KINDS> = "hushnet_events_delivered_total" by "kind";
    /// Events whose user had no connection here, by kind.
    events_absent: CounterByNumber<KINDS> = "hushnet_events_absent_total" by "kind";
    /// Events that could not be made, by kind: an audience, a condition or a cast of the source failed.
    events_failed: CounterByNumber<KINDS> = "hushnet_events_failed_total" by "kind";
    /// Notifications that were no event and were dropped, by channel.
    notifications_malformed: CounterByNumber<CHANNELS_MAX> = "hushnet_notifications_malformed_total" by "channel";
    /// Notifications without an id that were dropped, by channel: the database has a log, and its own triggers write
    /// an id.
    notifications_without_id: CounterByNumber<CHANNELS_MAX> = "hushnet_notifications_without_id_total" by "channel";
    /// From the creation of the event's row to the write to a socket, in seconds, of live deliveries; a sample
    /// of at most 256 a second. An event that came late because the listener had to catch up, or because the
    /// connection fell behind, counts; one that was replayed to a client that came back does not.
    delivery_latency: Histogram = "hushnet_delivery_latency_seconds";
    /// From the creation of the event's row to its replay to a client that came back with a cursor, in seconds:
    /// how long the client had missed it; a sample of at most 32 writes a second, by the first event of each.
    replay_age: Histogram = "hushnet_replay_age_seconds";
    /// Times that a client was sent what it had missed, by cause (resume, lag) and by source (memory, log);
    /// one from the log costs a query.
    replays: CounterBy<Replay> = "hushnet_replays_total" by "cause", "source";
    /// Events sent to clients that had missed them.
    events_replayed: Counter = "hushnet_events_replayed_total";
    /// Clients that were reset, which makes them fetch their state anew, by reason.
    resets: CounterBy<ResetReason> = "hushnet_resets_total" by "reason";
    /// Events that were met again in the log or among the notifications, and dropped.
    events_repeated: Counter = "hushnet_events_repeated_total";
    /// Events read from the log because their notification was lost or none was sent.
    events_caught_up: Counter = "hushnet_events_caught_up_total";
    /// Rows of the log that came from the write-ahead log.
    events_streamed: Counter = "hushnet_events_streamed_total";
    /// Rows of the log that could not be read and were skipped, by reason: their events reach nobody. One that several
    /// clients ask for counts for each.
    log_rows_skipped: CounterBy<SkippedRow> = "hushnet_log_rows_skipped_total" by "reason";

    // The feed from PostgreSQL, and what it costs there.

    /// 1 while /readyz gives this reason, else 0.
    readiness_reasons: FlagBy<ReadinessReason> = "hushnet_readiness_reasons" by "reason";
    /// 1 while a trigger that writes the log has this fault, else 0.
    trigger_faults: FlagBy<TriggerFault> = "hushnet_trigger_faults" by "fault";
    /// 1 while everything committed is routed, 0 while the listener is away or catching up.
    feed_live: Flag = "hushnet_feed_live";
    /// From sending a barrier to its commit, in seconds. It waits for the lock that all notifying commits
    /// share: when it is slow, ingest = adaptive helps the application.
    barrier_commit: Histogram = "hushnet_barrier_commit_seconds";
    /// From sending a barrier to hearing it, in seconds.
    barrier_round_trip: Histogram = "hushnet_barrier_round_trip_seconds";
    /// Seconds since the last barrier returned, or since the start if none has.
    barrier_age: Age = "hushnet_barrier_age_seconds";
    /// Barriers that did not commit, by cause.
    barriers_failed: CounterBy<DatabaseFault> = "hushnet_barriers_failed_total" by "cause";
    /// 1 while a barrier waits to commit although the database answers, else 0.
    barrier_uncommitted: Flag = "hushnet_barrier_uncommitted";
    /// 1 while the listener receives PostgreSQL's notifications, else 0.
    listener_connected: Flag = "hushnet_listener_connected";
    /// Times that the listener lost its connection to PostgreSQL.
    listener_reconnects: Counter = "hushnet_listener_reconnects_total";
    /// Share of PostgreSQL's notification queue in use, 0 to 1; when it is full, every transaction that
    /// notifies fails.
    notification_queue_usage: Gauge = "hushnet_notification_queue_usage_ratio";
    /// 1 while the log's rows are taken from the write-ahead log (ingest = wal), else 0: then the log is polled.
    wal_streaming: Flag = "hushnet_wal_streaming";
    /// Times that the log's rows could not be streamed, or no longer, by cause. The log was polled instead.
    stream_failures: CounterBy<StreamFault> = "hushnet_wal_stream_failures_total" by "cause";
    /// How much of the write-ahead log PostgreSQL keeps for this server's slot, in bytes; 0 without a slot.
    wal_lag_bytes: Gauge = "hushnet_wal_lag_bytes";
    /// 1 while this node leads: it reads the log and publishes events on the bus; else 0.
    node_leading: Flag = "hushnet_node_leading";
    /// 1 while this node takes events from the bus, else 0.
    node_following: Flag = "hushnet_node_following";
    /// The number of the term in which this node leads or has last led; 0 before.
    node_term: Gauge = "hushnet_node_term";
    /// The format of the messages that this node publishes, the newest that all live nodes read; 0 while it does not lead.
    node_batch_version: Gauge = "hushnet_node_batch_version";
    /// Shards that this node takes from the bus; 0 while it reads the log itself.
    node_shards: Gauge = "hushnet_node_shards";
    /// Times that a shard's events were read from the log because the bus did not bring them, by cause.
    node_repairs: CounterBy<RepairCause> = "hushnet_node_repairs_total" by "cause";
    /// 1 while there is a connection to the bus, else 0.
    bus_connected: Flag = "hushnet_bus_connected";
    /// Times that the connection to the bus ended or could not be made, by cause.
    bus_disconnects: CounterBy<BusCause> = "hushnet_bus_disconnects_total" by "cause";
    /// Messages that this node has published on the bus.
    bus_messages_published: Counter = "hushnet_bus_messages_published_total";
    /// The length of these messages, in bytes.
    bus_bytes_published: Counter = "hushnet_bus_bytes_published_total";
    /// Messages that the bus did not take, by cause. Followers read them from the log.
    bus_messages_dropped: CounterBy<Dropped> = "hushnet_bus_messages_dropped_total" by "cause";
    /// Messages of another run than the leader's that the database names. They were dropped.
    bus_messages_foreign: Counter = "hushnet_bus_messages_foreign_total";
    /// Messages that no version of this service has written, or a newer one. They were dropped.
    bus_messages_unreadable: Counter = "hushnet_bus_messages_unreadable_total";
    /// Attempts to rotate the log's partitions or to drop an old one that failed, and attempts to rotate
    /// without a free partition.
    log_maintenance_failures: Counter = "hushnet_log_maintenance_failures_total";
    /// Partitions of the log that are older than the retention and could not be dropped.
    log_partitions_overdue: Gauge = "hushnet_log_partitions_overdue";
}

impl Metrics {
    /// A WebSocket opened.
    pub fn connection_opened(&self) {
        self.connections_opened.increment();
        self.connections_open.increment();
    }

    /// A WebSocket closed that was counted as opened.
    pub fn connection_closed(&self, reason: Closed) {
        self.connections_open.decrement();
        self.connections_closed.increment(reason);
    }

    /// An event came from PostgreSQL, for a user with this many connections.
    pub fn event_routed(&self, kind: Kind, connections: usize) {
        self.events_received.increment(kind.number());
        if connections == 0 {
            self.events_absent.increment(kind.number());
        }
    }

    /// An event, or a reset, was written to a socket.
    pub fn signal_sent(&self, signal: &Signal) {
        match signal {
            Signal::Event(event) => self.events_delivered.increment(event.kind.number()),
            Signal::Reset(reset) => self.resets.increment(reset.reason),
            Signal::Revocation(_) | Signal::Wake | Signal::ClockChanged | Signal::Behind => {}
        }
    }

    /// A client is sent what it has missed.
    pub fn replays(&self, cause: ReplayCause, source: ReplaySource) {
        self.replays.increment(Replay { cause, source });
    }

    /// A client is sent this many events that it has missed.
    pub fn events_replayed(&self, events: u64) {
        self.events_replayed.add(events);
    }

    /// A connection missed this many events.
    pub fn lagged(&self, events: u64) {
        self.lags.increment();
        self.lagged_events.add(events);
    }

    /// The WebSockets that are open.
    #[must_use]
    pub fn connections(&self) -> u32 {
        u32::try_from(self.connections_open.get()).unwrap_or_default()
    }

    /// A message of so many bytes was published on the bus.
    pub fn bus_published(&self, bytes: u64) {
        self.bus_messages_published.increment();
        self.bus_bytes_published.add(bytes);
    }

    /// PostgreSQL's answer to `pg_notification_queue_usage()`.
    pub fn notification_queue_usage(&self, ratio: f64) {
        self.notification_queue_usage.set(ratio);
    }

    /// The exposition, in Prometheus's text format 0.0.4.
    #[must_use]
    pub fn render(&self, users_connected: usize) -> String {
        self.users_connected.set(users_connected as f64);
        self.expose();
        self.recorder.scope(|| self.expose_by_name());
        self.recorder.render()
    }

    fn expose_by_name(&self) {
        let known = self.kinds.names();
        let other = (Kind::OTHER.number(), Kind::OTHER_NAME);
        for by_kind in [
            &self.events_received,
            &self.events_delivered,
            &self.events_absent,
            &self.events_failed,
        ] {
            let known = known.iter().map(AsRef::as_ref).enumerate();
            by_kind.expose_as(known.chain([other]));
        }
        for by_channel in [
            &self.notifications_malformed,
            &self.notifications_without_id,
        ] {
            by_channel.expose_as(self.channels.names().enumerate());
        }
    }

    /// An event of this kind could not be made.
    pub fn event_failed(&self, kind: Kind) {
        self.events_failed.increment(kind.number());
    }

    /// A notification that was no event was dropped.
    pub fn notification_malformed(&self, channel: Channel) {
        self.notifications_malformed.increment(channel.number());
    }

    /// A notification without an id was dropped.
    pub fn notification_without_id(&self, channel: Channel) {
        self.notifications_without_id.increment(channel.number());
    }

    /// The channels that events are notified on.
    #[must_use]
    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Must be called every 15 seconds: that is the window of `hushnet_channel_backlog_max`.
    pub fn upkeep(&self) {
        self.recorder.upkeep();
        self.channel_backlog.advance();
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn counts_are_exposed() {
        let metrics = Metrics::new();
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed(Closed::ByServer(crate::protocol::CloseCode::IdleTimeout));
        metrics.event_routed(Kind::DEVICE, 0);
        metrics.event_routed(Kind::DEVICE, 2);
        metrics.replays(ReplayCause::Lag, ReplaySource::Log);
        metrics.events_replayed(3);
        metrics.delivery_latency.record(0.0004);
        metrics.replay_age.record(50_000.0);
        metrics.feed_live.set(true);
        metrics.channel_backlog.observe(5);
        metrics.upkeep();
        let text = metrics.render(1);
        for line in [
            "hushnet_build_info{version=\"0.1.0\"} 1",
            "hushnet_connections_open 1",
            "hushnet_users_connected 1",
            "hushnet_connections_closed_total{reason=\"idle_timeout\"} 1",
            "hushnet_connections_rejected_total{reason=\"address_limit\"} 0",
            "hushnet_events_received_total{kind=\"device\"} 2",
            "hushnet_events_absent_total{kind=\"device\"} 1",
            "hushnet_events_received_total{kind=\"message\"} 0",
            "hushnet_replays_total{cause=\"lag\",source=\"log\"} 1",
            "hushnet_replays_total{cause=\"lag\",source=\"memory\"} 0",
            "hushnet_events_replayed_total 3",
            "hushnet_feed_live 1",
            "hushnet_channel_backlog_max 5",
            "hushnet_delivery_latency_seconds_bucket{le=\"0.0005\"} 1",
            "hushnet_replay_age_seconds_bucket{le=\"14400\"} 0",
            "hushnet_replay_age_seconds_bucket{le=\"86400\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert_eq!(metrics.events_received.total(), 2);
        metrics.upkeep();
        assert!(metrics.render(0).contains("hushnet_channel_backlog_max 0"));
    }

    /// Name, kind and labels of each series of the service in the exposition, as rows of a table.
    fn exposed() -> BTreeSet<String> {
        let text = Metrics::new().render(0);
        let types = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE hushnet_"));
        let row = |name: &str| {
            let (name, kind) = name.split_once(' ').unwrap();
            let labelled = format!("hushnet_{name}{{");
            let sample = text.lines().find_map(|line| line.strip_prefix(&labelled));
            let labels = sample.map_or("-".to_owned(), |sample| {
                let names = sample.split(',').filter_map(|label| label.split_once('='));
                let names: Vec<_> = names.map(|(name, _)| format!("`{name}`")).collect();
                names.join(", ")
            });
            format!("| `hushnet_{name}` | {kind} | {labels} ")
        };
        types.map(row).collect()
    }

    /// The rows of the table in docs/operations.md, without the meaning.
    fn documented() -> BTreeSet<String> {
        let operations = include_str!("../../docs/operations.md");
        let rows = operations
            .lines()
            .skip_while(|line| *line != "## Metrics")
            .skip_while(|line| !line.starts_with("|---"))
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').take(4).collect::<Vec<_>>().join("|"))
            .collect()
    }

    #[test]
    fn the_table_in_the_documentation_has_every_series_and_no_other() {
        let (documented, exposed) = (documented(), exposed());
        let differing: Vec<_> = documented.symmetric_difference(&exposed).collect();
        assert!(
            differing.is_empty(),
            "in one of the two only: {differing:#?}"
        );
    }
}
