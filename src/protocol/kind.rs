//! What an event is about, and the PostgreSQL channel that carries it.

use enum_map::Enum;
use strum::IntoStaticStr;

use super::Label;

/// What an event is about; each kind has its own PostgreSQL channel. Its text is the value of `type` in the event's
/// JSON, and of the label `kind` in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum EventKind {
    /// A row was inserted into `messages`.
    Message,
    /// A row was inserted into `sessions` (Double Ratchet sessions, not connections).
    Session,
    /// A row of `devices` was inserted, changed or deleted.
    Device,
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
