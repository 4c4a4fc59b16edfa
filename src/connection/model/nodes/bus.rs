//! The bus from those that lead to one follower, which loses, repeats and reorders, and the leader's end of it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::delivery::Relay;
use crate::nodes::{Destination, Message, Publisher, Run, VERSION, read};
use crate::protocol::{Cursor, Notification, ShardSet};

/// A message's bytes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bytes {
    bytes: Arc<Vec<u8>>,
    hash: u64,
}

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self {
            bytes: Arc::new(bytes),
            hash: hasher.finish(),
        }
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.bytes
    }
}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match read(&self.bytes, VERSION) {
            Ok((run, message)) => write!(f, "run {}: {message:?}", run.number),
            Err(error) => error.fmt(f),
        }
    }
}

/// What is on its way to the follower. Cheap to clone: every clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Bus {
    messages: Arc<Mutex<VecDeque<Bytes>>>,
    /// The shards that have users: messages of others are of no concern.
    shards: ShardSet,
}

impl Bus {
    pub(super) fn new(shards: ShardSet) -> Self {
        Self {
            messages: Arc::default(),
            shards,
        }
    }

    pub(super) fn messages(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.messages.lock().unwrap()
    }

    fn publish(&self, to: Destination, message: Vec<u8>) {
        let is_alive = matches!(read(&message, VERSION), Ok((_, Message::Alive)));
        let concerns = match to {
            Destination::Shard(shard) => self.shards.contains(shard),
            Destination::Control => !is_alive,
        };
        if concerns {
            self.messages().push_back(Bytes::new(message));
        }
    }
}

/// The end of a node that leads.
#[derive(Debug, Clone)]
pub(super) struct Publishing {
    /// `None` when its run has ended.
    publisher: Arc<Mutex<Option<Publisher>>>,
    bus: Bus,
}

impl Publishing {
    pub(super) fn new(run: Run, bus: &Bus) -> Self {
        Self {
            publisher: Arc::new(Mutex::new(Some(Publisher::new(run)))),
            bus: bus.clone(),
        }
    }

    fn with(&self, what: impl FnOnce(&mut Publisher, &mut dyn FnMut(Destination, Vec<u8>))) {
        if let Some(publisher) = &mut *self.publisher.lock().unwrap() {
            what(publisher, &mut |to, message| self.bus.publish(to, message));
        }
    }

    /// Publishes no more.
    pub(super) fn end(&self) {
        *self.publisher.lock().unwrap() = None;
    }

    pub(super) fn run(&self) -> Option<Run> {
        let publisher = self.publisher.lock().unwrap();
        publisher.as_ref().map(|publisher| *publisher.run())
    }

    pub(super) fn marks(&self) {
        self.with(|publisher, publish| publisher.marks(publish));
    }
}

impl Relay for Publishing {
    fn event(&mut self, notification: &Notification<'_>) {
        self.with(|publisher, publish| publisher.event(notification, publish));
    }

    fn barrier(&mut self, barrier: &Cursor) {
        self.with(|publisher, publish| {
            if publisher.goes_on_at(Some(barrier)) {
                publisher.barrier(barrier, publish);
            }
        });
    }

    fn restart(&mut self, cursor: Option<&Cursor>) {
        let goes_on = |publisher: &Publisher| publisher.goes_on_at(cursor);
        if !self.publisher.lock().unwrap().as_ref().is_some_and(goes_on) {
            self.end();
        }
    }

    fn row_for_all(&mut self) {
        self.with(|publisher, publish| publisher.row_for_all(publish));
    }

    fn sources(&mut self) {}

    fn flush(&mut self) {
        self.with(|publisher, publish| publisher.flush(publish));
    }
}
