//! What [`crate::BusEvents`] brings.

use bytes::Bytes;

use crate::error::BusError;
use crate::subject::Subject;

/// What has happened on the bus, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// The broker has accepted the login. From now on messages are published. `Subscribed` follows for each subject.
    Connected,
    /// The broker has confirmed the subscription: what is published from now on comes.
    Subscribed(Subject),
    /// A message.
    Message {
        /// What it was published on.
        subject: Subject,
        /// What was published.
        payload: Bytes,
    },
    /// Messages may have been lost, on a connection that goes on.
    Gap(GapCause),
    /// There is no connection, for this reason: the one that there was has ended, or another attempt has failed. Each
    /// failed attempt is such an event. Every subscription is void until `Subscribed` comes again.
    Disconnected(BusError),
}

/// Why messages may have been lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GapCause {
    /// More than [`crate::INBOUND_BYTES_MAX`] waited for [`crate::BusEvents::next`]: messages were dropped until half of
    /// it had been taken. Of any subject.
    InboundFull,
    /// The broker has ended the subscription to this subject. It is made again: `Subscribed` follows.
    Unsubscribed(Subject),
}

impl GapCause {
    /// The cause as the label of a metric or the field of a log line.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::InboundFull => "inbound_full",
            Self::Unsubscribed(_) => "unsubscribed",
        }
    }
}
