//! The declarations: each series' name, description and labels.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use super::Rejected;
use crate::protocol::{AuthError, Channel, Closed, EventKind, ResetReason};

/// Who connects, who leaves, and how far they fall behind.
pub(super) struct ConnectionSeries {
    pub(super) connections_open: Gauge,
    pub(super) users_connected: Gauge,
    pub(super) connections_opened: Counter,
    pub(super) connections_closed: Vec<(Closed, Counter)>,
    pub(super) connections_rejected: Vec<(Rejected, Counter)>,
    pub(super) identities_refused: [Counter; 19],
    pub(super) lags: Counter,
    pub(super) lagged_events: Counter,
    pub(super) channel_backlog: Gauge,
}

impl ConnectionSeries {
    pub(super) fn declare() -> Self {
        Self {
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
            connections_rejected: Rejected::all()
                .map(|reason| {
                    let counter = labelled(
                        "hushnet_connections_rejected_total",
                        "Requests for a WebSocket that were refused, by reason.",
                        "reason",
                        reason.as_str(),
                    );
                    (reason, counter)
                })
                .collect(),
            identities_refused: AuthError::ALL.map(|reason| {
                labelled(
                    "hushnet_identities_refused_total",
                    "Clients that did not prove who they are, by the answer's code.",
                    "reason",
                    reason.code(),
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
        }
    }
}

/// What happens to events between PostgreSQL and the sockets.
pub(super) struct EventSeries {
    pub(super) events_received: [Counter; 3],
    pub(super) events_delivered: [Counter; 3],
    pub(super) events_absent: [Counter; 3],
    pub(super) notifications_malformed: [Counter; 4],
    pub(super) delivery_latency: Histogram,
    pub(super) replays: [[Counter; 2]; 2],
    pub(super) events_replayed: Counter,
    pub(super) resets: [Counter; 5],
    pub(super) events_repeated: Counter,
    pub(super) events_caught_up: Counter,
}

impl EventSeries {
    pub(super) fn declare() -> Self {
        Self {
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
            delivery_latency: described_histogram(
                "hushnet_delivery_latency_seconds",
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
        }
    }
}

/// Whether events come at all, and what they cost PostgreSQL.
pub(super) struct FeedSeries {
    pub(super) feed_live: Gauge,
    pub(super) barrier_commit: Histogram,
    pub(super) barrier_round_trip: Histogram,
    pub(super) barrier_uncommitted: Gauge,
    pub(super) listener_connected: Gauge,
    pub(super) listener_reconnects: Counter,
    pub(super) notification_queue_usage: Gauge,
}

impl FeedSeries {
    pub(super) fn declare() -> Self {
        Self {
            feed_live: new_gauge(
                "hushnet_feed_live",
                "1 while everything committed is routed, 0 while the listener is away or catching up.",
            ),
            barrier_commit: described_histogram(
                "hushnet_barrier_commit_seconds",
                "From sending a barrier to its commit, in seconds. It waits for the lock that all \
                 notifying commits share: when it is slow, ingest = adaptive helps the application.",
            ),
            barrier_round_trip: described_histogram(
                "hushnet_barrier_round_trip_seconds",
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
        }
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
