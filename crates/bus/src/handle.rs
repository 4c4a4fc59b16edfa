//! The two ends that [`crate::open`] returns.

use std::sync::Arc;

use bytes::Bytes;

use crate::event::BusEvent;
use crate::inbound::Inbound;
use crate::outbound::{Dropped, Outbound, SUBJECTS_MAX};
use crate::subject::Subject;

/// What the handles and the driver share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
}

/// Publishes and subscribes. Nothing here waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

/// Receives. When it is dropped, the driver ends.
#[derive(Debug)]
pub struct BusEvents {
    shared: Arc<Shared>,
}

impl Bus {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Queues a message. The payload is not copied. `Ok` says that it will be written to the connection, if that lasts.
    ///
    /// # Errors
    ///
    /// The message is lost: there is no connection, too much is queued, or the broker takes no payload of its length.
    pub fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), Dropped> {
        self.shared.outbound.publish(subject, payload)
    }

    /// Wants the subject's messages from now on, on this and all later connections. [`BusEvent::Subscribed`] follows on
    /// each. Does nothing if it is wanted already. Above [`SUBJECTS_MAX`] it logs an error, and nothing follows.
    pub fn subscribe(&self, subject: Subject) {
        let name = subject.clone();
        if !self.shared.outbound.subscribe(subject) {
            tracing::error!(event = "bus_subjects_full", subject = %name, subjects_max = SUBJECTS_MAX);
        }
    }

    /// Wants the subject no longer. A later [`Bus::subscribe`] makes a new subscription, with a `Subscribed` of its own.
    pub fn unsubscribe(&self, subject: &Subject) {
        self.shared.outbound.unsubscribe(subject);
    }

    /// Gives up the connection, and makes a new one, to the next host if there are several.
    pub fn reconnect(&self) {
        self.shared.outbound.reconnect();
    }
}

impl BusEvents {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next event. Waits for ever if the driver does not run. Cancel-safe.
    pub async fn next(&mut self) -> BusEvent {
        self.shared.inbound.next().await
    }
}

impl Drop for BusEvents {
    fn drop(&mut self) {
        self.shared.inbound.close();
        self.shared.outbound.close();
    }
}
