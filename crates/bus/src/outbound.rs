//! The messages that wait to be published, and the subjects that are wanted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::subject::Subject;

/// The most bytes of messages that wait to be published, with their subjects and what holds them.
pub const PUBLISH_BYTES_MAX: usize = 8 << 20;
/// The most subjects of one [`crate::Bus`].
pub const SUBJECTS_MAX: usize = 4096;
/// What a queued message costs beside its payload and its subject.
const MESSAGE_OVERHEAD_BYTES: usize = 64 + size_of::<(Subject, Bytes)>();

/// The message was not taken, and is lost.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, enum_map::Enum, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Dropped {
    /// There is no connection.
    #[error("the bus is not connected")]
    Disconnected,
    /// More than [`PUBLISH_BYTES_MAX`] would wait.
    #[error("{PUBLISH_BYTES_MAX} bytes wait to be published on the bus")]
    QueueFull,
    /// The payload is longer than the broker takes.
    #[error("a message is too long for the bus")]
    PayloadTooLarge,
}

impl Dropped {
    /// What the operator does.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Disconnected => "nothing here: why there is no connection is said where it ended",
            Self::QueueFull => {
                "look whether the broker and the network to it are fast enough for what is published"
            }
            Self::PayloadTooLarge => "raise NATS's max_payload, which is 1 MiB by default",
        }
    }
}

/// What the handles ask of the driver.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    state: Mutex<State>,
    /// Something is to be published, or has changed.
    wake: Notify,
    /// The reader of events is gone.
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_connected: bool,
    payload_bytes_max: usize,
    messages: VecDeque<(Subject, Bytes)>,
    message_bytes: usize,
    /// Each with the number of the request that it was wanted by.
    wanted: HashMap<Subject, u64>,
    requests: u64,
    has_changed: bool,
    reconnect: bool,
}

/// What a session takes at once.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// In order.
    pub(crate) messages: Vec<(Subject, Bytes)>,
    /// A new connection is asked for.
    pub(crate) reconnect: bool,
}

impl Outbound {
    pub(crate) fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), Dropped> {
        let mut state = self.lock();
        if !state.is_connected {
            return Err(Dropped::Disconnected);
        }
        if payload.len() > state.payload_bytes_max {
            return Err(Dropped::PayloadTooLarge);
        }
        let cost = cost(subject, &payload);
        if state.message_bytes + cost > PUBLISH_BYTES_MAX {
            return Err(Dropped::QueueFull);
        }
        state.message_bytes += cost;
        let was_empty = state.messages.is_empty();
        state.messages.push_back((subject.clone(), payload));
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether there is room for the subject.
    pub(crate) fn subscribe(&self, subject: Subject) -> bool {
        let mut state = self.lock();
        if state.wanted.contains_key(&subject) {
            return true;
        }
        if state.wanted.len() >= SUBJECTS_MAX {
            return false;
        }
        state.requests += 1;
        let request = state.requests;
        state.wanted.insert(subject, request);
        self.changed(state);
        true
    }

    pub(crate) fn unsubscribe(&self, subject: &Subject) {
        let mut state = self.lock();
        if state.wanted.remove(subject).is_some() {
            self.changed(state);
        }
    }

    /// The broker has ended the subscription: it is to be made again. Returns whether it is still wanted.
    pub(crate) fn renew(&self, subject: &Subject) -> bool {
        let mut state = self.lock();
        state.requests += 1;
        let request = state.requests;
        let Some(wanted) = state.wanted.get_mut(subject) else {
            return false;
        };
        *wanted = request;
        self.changed(state);
        true
    }

    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.has_changed = true;
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn reconnect(&self) {
        self.lock().reconnect = true;
        self.wake.notify_one();
    }

    /// Ends the driver.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }

    /// Ends when the driver is to end.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Ends when something has changed since the last time.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Messages are taken from now on.
    pub(crate) fn connected(&self, payload_bytes_max: usize) {
        let mut state = self.lock();
        state.is_connected = true;
        state.payload_bytes_max = payload_bytes_max;
        state.has_changed = true;
        state.reconnect = false;
    }

    /// What waits is lost.
    pub(crate) fn disconnected(&self) {
        let mut state = self.lock();
        state.is_connected = false;
        state.messages = VecDeque::new();
        state.message_bytes = 0;
    }

    /// Messages of about `bytes_max` bytes; at least one, if there is one.
    pub(crate) fn take(&self, bytes_max: usize) -> Taken {
        let mut state = self.lock();
        let mut taken = Taken {
            messages: Vec::new(),
            reconnect: std::mem::take(&mut state.reconnect),
        };
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some((subject, payload)) = state.messages.pop_front()
        {
            let cost = cost(&subject, &payload);
            state.message_bytes -= cost;
            bytes += cost;
            taken.messages.push((subject, payload));
        }
        taken
    }

    /// The subjects, if they may be others than at the last call.
    pub(crate) fn take_wanted(&self) -> Option<HashMap<Subject, u64>> {
        let mut state = self.lock();
        std::mem::take(&mut state.has_changed).then(|| state.wanted.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(subject: &Subject, payload: &Bytes) -> usize {
    payload.len() + subject.as_str().len() + MESSAGE_OVERHEAD_BYTES
}
