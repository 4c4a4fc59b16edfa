//! This process as one of many nodes: its end of the bus, what the database says of the leader, and what the election asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::intake::Intake;
use super::leader_watch::{Found, LeaderWatch};
use crate::delivery::{HealthReport, Hub};
use crate::metrics::Metrics;
use crate::nodes::{
    Incoming, Link, MARK_INTERVAL, Message, Order, Orders, Publishing, Run, Status, Unreadable,
    read,
};
use crate::protocol::{Epoch, ReadinessReason, ShardSet};
use crate::store::Log;

/// A leader that has been received so often in a row is followed.
const ALIVE_MIN: u32 = 3;
/// A leader that is silent for longer has to be received as often again.
const ALIVE_INTERVAL_MAX: Duration = MARK_INTERVAL.saturating_mul(3);
/// A node that has a bus neither leads nor follows for so long while one is elected.
const ALONE_MAX: Duration = Duration::from_secs(5);
/// A node that has a bus and receives no leader, while one is elected, connects to the bus anew, and again after as long: its
/// server may be cut off from the leader's, or be a primary of before.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(10);
/// Between two connections to the database that are made because the bus brings a later timeline.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);
/// Between two log lines about messages that cannot be read.
const UNREADABLE_INTERVAL: Duration = Duration::from_secs(10);

/// What comes to a node.
#[derive(Debug)]
pub(super) enum Came {
    /// Over the bus.
    Incoming(Incoming),
    /// From the database.
    Found(Result<Found, sqlx::Error>),
    /// From the election.
    Order(Order),
}

/// What a node that reads the log does next.
#[derive(Debug)]
pub(super) enum Turn {
    /// It goes on.
    Read,
    /// A leader publishes: this node follows its run.
    Follow(Run),
    /// This node is elected: it publishes what it routes, and then says so.
    Publish(Order),
    /// The bus brings messages of a later timeline: this node's database is no longer the primary.
    Reconnect,
}

/// How often a leader has been received in a row.
#[derive(Debug)]
struct Alive {
    run: Run,
    times: u32,
    last: Instant,
}

/// This process as a node.
#[derive(Debug)]
pub struct Node {
    pub(super) link: Link,
    pub(super) watch: LeaderWatch,
    pub(super) hub: Hub,
    pub(super) publishing: Publishing,
    orders: Orders,
    /// An order that came while the node followed.
    ordered: Option<Order>,
    may_lead: watch::Sender<bool>,
    /// The run that the database names.
    named: Option<u64>,
    alive: Option<Alive>,
    /// The latest timeline that messages have named.
    timeline: u32,
    /// When the connection to the database was last given up for that.
    reconnected: Option<Instant>,
    /// Since when the node has been neither leader nor follower.
    alone_since: Option<Instant>,
    /// When a connection to another server of the bus was last asked for.
    elsewhere: Option<Instant>,
    ticks: Interval,
    unreadable: Option<Instant>,
    health: HealthReport,
    pub(super) status: Status,
    pub(super) metrics: Arc<Metrics>,
}

/// What a node is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// Its end of the bus.
    pub link: Link,
    /// What it publishes when it leads.
    pub publishing: Publishing,
    /// What the election asks for.
    pub orders: Orders,
    /// Whether it may be elected.
    pub may_lead: watch::Sender<bool>,
    /// What others see of it.
    pub status: Status,
}

impl Node {
    /// A node that reads the log by itself.
    #[must_use]
    pub fn new(
        parts: NodeParts,
        log: Log,
        hub: Hub,
        health: HealthReport,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut ticks = interval(MARK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link: parts.link,
            watch: LeaderWatch::new(log),
            hub,
            publishing: parts.publishing,
            orders: parts.orders,
            ordered: None,
            may_lead: parts.may_lead,
            named: None,
            alive: None,
            timeline: 0,
            reconnected: None,
            alone_since: None,
            elsewhere: None,
            ticks,
            unreadable: None,
            health,
            status: parts.status,
            metrics,
        }
    }

    /// The log has this history and timeline from here on.
    pub(super) fn joined(&mut self, epoch: Epoch) {
        self.link.follow_history(epoch.history);
        self.publishing.set_lives(true);
        if epoch.timeline >= self.timeline {
            self.health.end(ReadinessReason::NewerTimeline);
        }
    }

    /// There is no connection to the database, or the log cannot be read.
    pub(super) fn away(&mut self) {
        self.publishing.set_lives(false);
        self.may_lead.send_replace(false);
        (self.alive, self.alone_since) = (None, None);
    }

    /// What comes next over the bus, from the database or from the election. Cancel-safe.
    pub(super) async fn came(&mut self) -> Came {
        tokio::select! {
            incoming = self.link.next() => Came::Incoming(incoming),
            found = self.watch.next() => Came::Found(found),
            order = self.orders.next() => Came::Order(order),
        }
    }

    /// This node is elected: what it routes is published from here on, which the election awaits.
    pub(super) fn publish(&self, order: Order, intake: &mut Intake) {
        let Some(position) = intake.durable_position() else {
            return;
        };
        self.publishing.begin(Run {
            history: position.epoch.history,
            timeline: position.epoch.timeline,
            number: order.run,
        });
        let relay = Box::new(self.publishing.clone());
        intake.router().set_relay(Some(relay));
        if order.ready.send(()).is_err() {
            // The election has given up meanwhile.
            self.publishing.end();
        }
    }

    /// The node has stopped following, or begins to.
    pub(super) fn set_follows(&mut self, follows: bool) {
        self.alone_since = None;
        self.metrics.node_following.set(follows);
        self.metrics.node_shards.set(0.0);
        self.status.set_follows(follows);
    }

    /// The election asks for something while the node follows. Returns whether the node is to lead.
    pub(super) fn ordered(&mut self, order: Order) -> bool {
        // The election gives up after a while.
        self.ordered = (!order.ready.is_closed()).then_some(order);
        self.ordered.is_some()
    }

    /// The order for which the node has stopped following.
    pub(super) fn take_ordered(&mut self) -> Option<Order> {
        self.ordered.take()
    }

    /// What a node does next that reads the log, of this history and timeline, itself. Cancel-safe.
    pub(super) async fn next(&mut self, epoch: Option<Epoch>) -> Turn {
        let came = tokio::select! {
            incoming = self.link.next() => Came::Incoming(incoming),
            found = self.watch.next() => Came::Found(found),
            order = self.orders.next() => Came::Order(order),
            _ = self.ticks.tick() => {
                self.tick(epoch);
                return Turn::Read;
            }
        };
        match came {
            Came::Incoming(incoming) => self.receive(incoming, epoch),
            Came::Found(found) => self.found(found),
            Came::Order(order) => Turn::Publish(order),
        }
    }

    fn tick(&mut self, epoch: Option<Epoch>) {
        let may_lead = epoch.is_some() && self.link.is_connected();
        self.may_lead
            .send_if_modified(|may| std::mem::replace(may, may_lead) != may_lead);
        self.metrics.bus_connected.set(self.link.is_connected());
        if epoch.is_none() && self.link.is_connected() {
            // Without a log nothing is subscribed whose confirmation would say so.
            self.health.end(ReadinessReason::BusDisconnected);
        }
        if self.publishing.run().is_some() {
            self.link.want(ShardSet::NONE);
            self.health.end(ReadinessReason::BusSilent);
            self.alone_since = None;
            return;
        }
        // Subscribed before it follows, so that it need not wait then.
        self.link.want(self.hub.interest().wanted());
        let since = *self.alone_since.get_or_insert_with(Instant::now);
        if may_lead && since.elapsed() >= ALONE_MAX {
            self.health.begin(ReadinessReason::BusSilent, "");
            self.look_elsewhere(since);
        }
    }

    /// The node has a bus on which the leader is not received.
    fn look_elsewhere(&mut self, since: Instant) {
        let received = self.alive.as_ref().map(|alive| alive.last);
        let last = received.max(self.elsewhere).max(Some(since));
        let is_due = last.is_some_and(|last| last.elapsed() >= ELSEWHERE_AFTER);
        if is_due && self.named.is_some() {
            self.elsewhere = Some(Instant::now());
            tracing::warn!(event = "leader_missing", action = "reconnect");
            self.link.reconnect();
        }
    }

    fn receive(&mut self, incoming: Incoming, epoch: Option<Epoch>) -> Turn {
        match incoming {
            Incoming::Message(bytes) => {
                return match self.read(&bytes) {
                    Some((run, message)) => self.message(run, &message, epoch),
                    None => Turn::Read,
                };
            }
            Incoming::Disconnected(error) => {
                self.alive = None;
                let detail = error.to_string();
                self.health.begin(ReadinessReason::BusDisconnected, &detail);
            }
            Incoming::Confirmed(_) => self.health.end(ReadinessReason::BusDisconnected),
            Incoming::Lost | Incoming::Nothing => {}
        }
        Turn::Read
    }

    fn message(&mut self, run: Run, message: &Message<'_>, epoch: Option<Epoch>) -> Turn {
        let own = self.publishing.run();
        let (Some(epoch), false) = (epoch, own == Some(run)) else {
            return Turn::Read;
        };
        if run.epoch().is_of_a_later_timeline_than(epoch) {
            return if self.is_behind(run.timeline) {
                Turn::Reconnect
            } else {
                Turn::Read
            };
        }
        let is_named = run.epoch() == epoch && self.named == Some(run.number);
        if !is_named || own.is_some() {
            self.metrics.bus_messages_foreign.increment();
            self.watch.ask();
            return Turn::Read;
        }
        self.status.received(run.number);
        if *message != Message::Alive || !self.is_followed(run) {
            return Turn::Read;
        }
        let wanted = self.hub.interest().wanted();
        if wanted.minus(self.link.confirmed()).is_empty() && self.link.has_control() {
            Turn::Follow(run)
        } else {
            Turn::Read
        }
    }

    /// A leader that the database names was received. Returns whether it is to be followed.
    fn is_followed(&mut self, run: Run) -> bool {
        let now = Instant::now();
        let goes_on = self.alive.as_ref().filter(|alive| {
            let pause = now.saturating_duration_since(alive.last);
            alive.run == run && pause <= ALIVE_INTERVAL_MAX
        });
        let times = goes_on.map_or(1, |alive| alive.times + 1);
        self.alive = Some(Alive {
            run,
            times,
            last: now,
        });
        times >= ALIVE_MIN
    }

    /// The bus brings messages of a later timeline than the database has. Returns whether to connect to the database anew.
    pub(super) fn is_behind(&mut self, timeline: u32) -> bool {
        self.timeline = timeline;
        let detail = format!("the bus brings events of timeline {timeline}");
        self.health.begin(ReadinessReason::NewerTimeline, &detail);
        let now = Instant::now();
        let is_recent = |last: Instant| now.saturating_duration_since(last) < RECONNECT_INTERVAL;
        if self.reconnected.is_some_and(is_recent) {
            return false;
        }
        self.reconnected = Some(now);
        tracing::warn!(
            event = "newer_timeline",
            timeline,
            advice = ReadinessReason::NewerTimeline.remedy()
        );
        true
    }

    fn found(&mut self, found: Result<Found, sqlx::Error>) -> Turn {
        match found {
            Ok(found) => self.named = found.run,
            // The listener says what is wrong with the database.
            Err(error) => tracing::debug!(event = "leader_look_failed", %error),
        }
        Turn::Read
    }

    /// What a message says. One that cannot be read is counted, and said now and then.
    pub(super) fn read<'m>(&mut self, bytes: &'m [u8]) -> Option<(Run, Message<'m>)> {
        let read = read(bytes, self.status.batch_version());
        read.map_err(|error| self.unreadable(error)).ok()
    }

    fn unreadable(&mut self, error: Unreadable) {
        self.metrics.bus_messages_unreadable.increment();
        let now = Instant::now();
        let is_due = |last: Instant| now.saturating_duration_since(last) >= UNREADABLE_INTERVAL;
        if self.unreadable.is_none_or(is_due) {
            self.unreadable = Some(now);
            tracing::warn!(
                event = "bus_message_unreadable",
                %error,
                advice = "upgrade the older nodes; if all are of one version, somebody else publishes on these subjects \
                          (SECURITY.md)"
            );
        }
    }
}

/// What the node of a listener does next; without one, the listener reads for ever.
pub(super) async fn next(node: &mut Option<Node>, epoch: Option<Epoch>) -> Turn {
    match node {
        Some(node) => node.next(epoch).await,
        None => std::future::pending().await,
    }
}
