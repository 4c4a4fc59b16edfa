//! What this node is, as other tasks and other nodes see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use uuid::Uuid;

use crate::store::{NodeState, Role};

/// What this node is. Cheap to clone: every clone is the same.
#[derive(Debug, Clone)]
pub struct Status(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Uuid,
    name: String,
    batch_version: u8,
    leads: AtomicBool,
    follows: AtomicBool,
    shards: AtomicU32,
    /// The run of which a message was received last; 0 before any.
    run: AtomicU64,
    received: AtomicBool,
}

impl Status {
    /// A node of this name that reads the log by itself, and messages of formats up to this one.
    #[must_use]
    pub fn new(name: String, batch_version: u8) -> Self {
        Self(Arc::new(Inner {
            node: Uuid::new_v4(),
            name,
            batch_version,
            leads: AtomicBool::new(false),
            follows: AtomicBool::new(false),
            shards: AtomicU32::new(0),
            run: AtomicU64::new(0),
            received: AtomicBool::new(false),
        }))
    }

    /// The node's id.
    #[must_use]
    pub fn node(&self) -> Uuid {
        self.0.node
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The newest format of messages that the node reads.
    #[must_use]
    pub fn batch_version(&self) -> u8 {
        self.0.batch_version
    }

    /// Whether the node leads.
    pub fn set_leads(&self, leads: bool) {
        self.0.leads.store(leads, Relaxed);
    }

    /// Whether the node follows.
    pub fn set_follows(&self, follows: bool) {
        self.0.follows.store(follows, Relaxed);
        self.0.shards.store(0, Relaxed);
    }

    /// How many shards the node serves from the bus.
    pub fn set_shards(&self, shards: u32) {
        self.0.shards.store(shards, Relaxed);
    }

    /// A message of this run was received.
    pub fn received(&self, run: u64) {
        self.0.run.store(run, Relaxed);
        self.0.received.store(true, Relaxed);
    }

    /// The node's row, for a node with so many connections and this lag. Whether something was received counts from the last call on.
    #[must_use]
    pub fn row(&self, connections: u32, lag: Duration) -> NodeState {
        let Inner { node, name, .. } = &*self.0;
        let role = if self.0.leads.load(Relaxed) {
            Role::Leader
        } else if self.0.follows.load(Relaxed) {
            Role::Follower
        } else {
            Role::Reader
        };
        let run = self.0.run.load(Relaxed);
        NodeState {
            node: *node,
            name: name.clone(),
            batch_version: self.0.batch_version,
            role,
            run: (run != 0).then_some(run),
            received: self.0.received.swap(false, Relaxed),
            shards: self.0.shards.load(Relaxed),
            connections,
            lag,
        }
    }
}
