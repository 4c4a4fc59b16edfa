//! What every connection of a server has in common.

use std::sync::Arc;

use hushnet_websocket::{CloseQueue, SocketLimits};
use tokio::sync::watch;

use super::clock::Clock;
use super::deadlines::Timeouts;
use super::drain::Drain;
use super::outbox::Outbox;
use crate::delivery::{Feed, HealthReport, Hub, LatencySampler, ReplayBuffer};
use crate::identity::Authenticator;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::protocol::{Signal, UserType};
use crate::store::Log;

/// What every connection of a server has in common.
#[derive(Debug)]
pub struct Shared {
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Frames that a client may send in a second, on the average.
    pub client_frames_per_second: u32,
    /// How many bytes a socket may hold.
    pub socket_limits: SocketLimits,
    /// The order in which sockets are closed.
    pub close_queue: CloseQueue,
    /// The time.
    pub clock: Arc<Clock>,
    /// The connected users.
    pub hub: Hub,
    /// The newest signals: what a client has missed, without a query.
    pub replay_buffer: ReplayBuffer,
    /// All retained events.
    pub log: Log,
    /// How much clients may.
    pub limits: Arc<Limits>,
    /// Checks a token that a client sends.
    pub auth: Arc<Authenticator>,
    /// Whether events are coming, and from where on.
    pub feed: watch::Receiver<Feed>,
    /// Where it is reported what is wrong with events.
    pub health: HealthReport,
    /// Where deliveries are counted.
    pub metrics: Arc<Metrics>,
    /// Where deliveries are sampled.
    pub latency: LatencySampler,
    /// Whether the server is ending, and when each of its clients is to go.
    pub drain: Drain,
}

impl Shared {
    /// The type of the database's users, as far as it has been read.
    #[must_use]
    #[inline]
    pub fn user_type(&self) -> UserType {
        self.metrics.kinds.user_type()
    }

    /// Counts deliveries that are with the kernel.
    pub(super) fn count_delivered(&self, outbox: &mut Outbox) {
        if let Some(delivered) = outbox.take_delivered() {
            if let Signal::Event(first) = &*delivered.first {
                self.latency.delivered(first);
            }
            let backlog = &self.metrics.channel_backlog;
            backlog.observe(delivered.count.into());
        }
    }
}
