//! This node's end of the bus: the subjects of its history, which subscriptions the broker has confirmed, and what comes.

use std::sync::Arc;

use bytes::Bytes;
use hushnet_bus::{Bus, BusCause, BusError, BusEvent, BusEvents, Subject};

use super::publisher::Destination;
use crate::metrics::Metrics;
use crate::protocol::{SHARDS, Shard, ShardSet};

/// The subjects of one history: two databases on one bus never meet.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    control: Subject,
    shards: Vec<Subject>,
}

impl Subjects {
    /// `None` for a name that no subject may have, which these are not.
    pub(super) fn of(history: u64) -> Option<Self> {
        let shards: Vec<_> = Shard::all()
            .filter_map(|shard| Subject::new(&format!("hushnet.{history:016x}.{shard}")).ok())
            .collect();
        let control = Subject::new(&format!("hushnet.{history:016x}.control")).ok()?;
        (shards.len() == SHARDS).then_some(Self { control, shards })
    }

    pub(super) fn subject(&self, of: Destination) -> &Subject {
        match of {
            Destination::Control => &self.control,
            Destination::Shard(shard) => &self.shards[shard.index()],
        }
    }

    fn find(&self, subject: &Subject) -> Option<Destination> {
        if *subject == self.control {
            return Some(Destination::Control);
        }
        let shards = Shard::all().zip(&self.shards);
        let mut found = shards.filter(|(_, of)| *of == subject);
        found.next().map(|(shard, _)| Destination::Shard(shard))
    }
}

/// What comes over the bus.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Bytes),
    /// The broker sends what is published there from here on.
    Confirmed(Destination),
    /// Messages may have been lost.
    Lost,
    /// There is no connection.
    Disconnected(BusError),
    /// Nothing that concerns the node.
    Nothing,
}

/// This node's end of the bus.
#[derive(Debug)]
pub struct Link {
    bus: Bus,
    events: BusEvents,
    history: Option<u64>,
    subjects: Option<Subjects>,
    wanted: ShardSet,
    confirmed: ShardSet,
    has_control: bool,
    is_connected: bool,
    /// Why there is no connection, as it was last logged.
    said: Option<BusCause>,
    metrics: Arc<Metrics>,
}

impl Link {
    /// No subject yet.
    #[must_use]
    pub fn new(bus: Bus, events: BusEvents, metrics: Arc<Metrics>) -> Self {
        Self {
            bus,
            events,
            history: None,
            subjects: None,
            wanted: ShardSet::NONE,
            confirmed: ShardSet::NONE,
            has_control: false,
            is_connected: false,
            said: None,
            metrics,
        }
    }

    /// The log has this history: its control subject is subscribed, and those of another no longer.
    pub fn follow_history(&mut self, history: u64) {
        if self.history == Some(history) {
            return;
        }
        self.want(ShardSet::NONE);
        if let Some(former) = self.subjects.take() {
            self.bus.unsubscribe(former.subject(Destination::Control));
        }
        (self.history, self.has_control) = (Some(history), false);
        self.subjects = Subjects::of(history);
        if let Some(subjects) = &self.subjects {
            self.bus
                .subscribe(subjects.subject(Destination::Control).clone());
        }
    }

    /// Subscribes to these shards and to no others.
    pub fn want(&mut self, shards: ShardSet) {
        for shard in shards.minus(self.wanted).iter() {
            self.subscribe(shard);
        }
        for shard in self.wanted.minus(shards).iter() {
            self.unsubscribe(shard);
        }
    }

    /// Subscribes to this shard.
    pub fn subscribe(&mut self, shard: Shard) {
        let Some(subjects) = &self.subjects else {
            return;
        };
        self.wanted = self.wanted.with(shard);
        let subject = subjects.subject(Destination::Shard(shard));
        self.bus.subscribe(subject.clone());
    }

    /// Ends the subscription to this shard.
    pub fn unsubscribe(&mut self, shard: Shard) {
        self.wanted = self.wanted.without(shard);
        self.confirmed = self.confirmed.without(shard);
        if let Some(subjects) = &self.subjects {
            self.bus
                .unsubscribe(subjects.subject(Destination::Shard(shard)));
        }
    }

    /// The shards whose subscription the broker has confirmed.
    #[must_use]
    pub fn confirmed(&self) -> ShardSet {
        self.confirmed
    }

    /// Whether the broker has confirmed the subscription to barriers.
    #[must_use]
    pub fn has_control(&self) -> bool {
        self.has_control
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Gives up the connection for a new one, to the next server of a cluster or to where the name leads now.
    pub fn reconnect(&self) {
        self.bus.reconnect();
    }

    /// What comes next. Cancel-safe.
    pub async fn next(&mut self) -> Incoming {
        match self.events.next().await {
            BusEvent::Connected => {
                (self.is_connected, self.said) = (true, None);
                tracing::info!(event = "bus_connected");
                Incoming::Nothing
            }
            BusEvent::Subscribed(subject) => self.confirm(&subject),
            BusEvent::Message { payload, .. } => Incoming::Message(payload),
            BusEvent::Gap(cause) => {
                tracing::warn!(event = "bus_gap", cause = cause.label());
                Incoming::Lost
            }
            BusEvent::Disconnected(error) => {
                self.metrics.bus_disconnects.increment(error.cause());
                // Each failed attempt is an event.
                if self.said.replace(error.cause()) != Some(error.cause()) {
                    let advice = error.advice();
                    tracing::warn!(event = "bus_disconnected", cause = error.cause().label(), %error, advice);
                }
                (self.is_connected, self.has_control) = (false, false);
                self.confirmed = ShardSet::NONE;
                Incoming::Disconnected(error)
            }
        }
    }

    fn confirm(&mut self, subject: &Subject) -> Incoming {
        let found = self.subjects.as_ref().and_then(|of| of.find(subject));
        match found {
            Some(Destination::Control) => self.has_control = true,
            Some(Destination::Shard(shard)) if self.wanted.contains(shard) => {
                self.confirmed = self.confirmed.with(shard);
            }
            _ => return Incoming::Nothing,
        }
        found.map_or(Incoming::Nothing, Incoming::Confirmed)
    }
}
