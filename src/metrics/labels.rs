//! The labels of series, and the enums that are labels only.

use enum_map::Enum;
use strum::IntoStaticStr;

use crate::protocol::{Label, Limit};

/// The type of a series' labels: an enum for one label, a struct of enums for several.
pub trait Labels: Enum + Copy {
    /// The text of each label's value, in the order in which the declaration names the labels.
    fn texts(self) -> Vec<&'static str>;
}

impl<L: Label> Labels for L {
    fn texts(self) -> Vec<&'static str> {
        vec![self.as_str()]
    }
}

/// Why a WebSocket was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Rejected {
    /// The request has no readable `user_id` (400), or asks for no WebSocket (426).
    BadRequest,
    /// `connections_max` are open (503).
    ConnectionLimit,
    /// Fewer than `connections_max` are open, and as many as the limit of open files admits (503).
    DescriptorLimit,
    /// The client's proof of its identity was refused (401, 403).
    Identity,
    /// The server is ending (503).
    Draining,
    /// The web page's origin is not allowed (403).
    Origin,
    /// The type of users' ids has not been read from the database yet, or has changed (503).
    DatabaseUnavailable,
    /// A limit on connections was met (429).
    #[strum(transparent)]
    Limit(Limit),
}

/// What a panic ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Panicked {
    /// A client's WebSocket connection.
    Connection,
    /// A connection that had not become a WebSocket, with its request.
    Request,
}

/// A replay of missed events to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub struct Replay {
    /// Why the client had missed events.
    pub cause: ReplayCause,
    /// Where the events were read.
    pub source: ReplaySource,
}

impl Labels for Replay {
    fn texts(self) -> Vec<&'static str> {
        vec![self.cause.as_str(), self.source.as_str()]
    }
}

/// Why a client had missed events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ReplayCause {
    /// It came back with a cursor.
    Resume,
    /// Its connection fell behind.
    Lag,
}

/// Where missed events were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ReplaySource {
    /// The replay buffer, in memory.
    Memory,
    /// The log, `realtime.log`.
    Log,
}
