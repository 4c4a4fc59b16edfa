//! What an event is about, and the PostgreSQL channel that carries it.

use enum_map::Enum;
use serde::Deserialize;
use strum::IntoStaticStr;

use super::{Label, ResetReason};

/// What an event is about; each kind has its own PostgreSQL channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A row was inserted into `messages`.
    Message,
    /// A row was inserted into `sessions` (Double Ratchet sessions, not connections).
    Session,
    /// A row of `devices` was inserted, changed or deleted.
    Device,
    /// A device or a user was deleted: closes the connections of the one or of the other, and is sent to
    /// nobody.
    Revocation,
    /// No change: every v1 client has to fetch its state anew. Never comes from PostgreSQL.
    #[serde(skip)]
    Reset(ResetReason),
    /// No change: wakes a connection, and is sent to nobody. Never comes from PostgreSQL.
    #[serde(skip)]
    Wake,
}

impl EventKind {
    /// Every kind of change that clients are told of, in the order of its discriminants.
    pub const ALL: [Self; 3] = [Self::Message, Self::Session, Self::Device];

    /// Its place in [`EventKind::ALL`]; `None` for the others.
    #[must_use]
    pub fn index(self) -> Option<usize> {
        match self {
            Self::Message => Some(0),
            Self::Session => Some(1),
            Self::Device => Some(2),
            Self::Revocation | Self::Reset(_) | Self::Wake => None,
        }
    }

    /// The kind that a trigger calls so.
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Message, Self::Session, Self::Device, Self::Revocation]
            .into_iter()
            .find(|kind| kind.as_str().as_bytes() == name)
    }

    /// The value of `type` in the event's JSON, and of the label `kind` in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Session => "session",
            Self::Device => "device",
            Self::Revocation => "revocation",
            Self::Reset(_) => "reset",
            Self::Wake => "wake",
        }
    }
}

/// A PostgreSQL notification channel that carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, IntoStaticStr)]
pub enum Channel {
    /// Events of `messages`.
    #[strum(serialize = "messages_channel")]
    Messages,
    /// Events of `sessions`.
    #[strum(serialize = "sessions_channel")]
    Sessions,
    /// Events of `devices`.
    #[strum(serialize = "devices_channel")]
    Devices,
    /// Deleted devices and users.
    #[strum(serialize = "realtime_revocations")]
    Revocations,
}

impl Channel {
    /// The channel of that name, if it is one of ours.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|channel| channel.as_str() == name)
    }
}
