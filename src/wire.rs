//! What goes over the wire: events, notices and close codes.
//!
//! Pure: no I/O, no clock. This is the only module that serializes or parses JSON that a client or
//! a trigger wrote. An event is parsed only as far as routing needs it; its text is kept as the
//! database wrote it and shared by every device that gets it. Fails by returning a typed error,
//! never by panicking, whatever the bytes.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::close::CloseCode;
pub use self::notification::{MalformedEvent, Notification};
use crate::cursor::Cursor;
use crate::frame::Frame;
use crate::secret::Secret;

mod close;
mod notification;

/// An event's JSON as the triggers of `migrate up` write it, at most: a session's, of four ids.
pub const EVENT_BYTES_MAX: usize = 512;
/// What its three encodings add to it: their headers, an envelope, the longest cursor that is given out.
const ENCODINGS_BYTES_MAX: usize = 400;

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
    fn from_name(name: &[u8]) -> Option<Self> {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// `messages_channel`
    Messages,
    /// `sessions_channel`
    Sessions,
    /// `devices_channel`
    Devices,
    /// `realtime_revocations`
    Revocations,
}

impl Channel {
    /// Every channel, in the order of its discriminants.
    pub const ALL: [Self; 4] = [
        Self::Messages,
        Self::Sessions,
        Self::Devices,
        Self::Revocations,
    ];

    /// The channel's name, as the triggers notify it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages_channel",
            Self::Sessions => "sessions_channel",
            Self::Devices => "devices_channel",
            Self::Revocations => "realtime_revocations",
        }
    }

    /// The channel of that name, if it is one of ours.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|channel| channel.as_str() == name)
    }
}

/// How a connection wants its events written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The event's JSON as the trigger wrote it: `/ws?user_id=…`.
    Plain,
    /// `{"event_type":…,"payload":{…}}`: `/ws/{user_id}`, as HushNet's released client expects.
    Envelope,
    /// The event's JSON with `cursor` added: subprotocol `hushnet.v1`, or a `since` parameter.
    V1,
}

/// One event for one user, shared by all of the user's connections.
#[derive(Debug)]
pub struct Event {
    /// Whose event it is: the routing key.
    pub user_id: Uuid,
    /// What it is about.
    pub kind: EventKind,
    /// Its row in `realtime.events`; `None` from a database that has only HushNet's own triggers.
    pub id: Option<i64>,
    /// Its place in the order in which this process routed events, from 1; 0 for one that was read
    /// from the log for a single client.
    pub sequence: u64,
    /// The cursor that its user's clients have passed when they get it; `None` where there is no log.
    pub passed: Option<Arc<Cursor>>,
    plain: Frame,
    envelope: OnceLock<Frame>,
    v1: OnceLock<Frame>,
}

/// What a revocation says.
#[derive(Deserialize)]
struct Revocation {
    /// `None` when it is the user who is gone.
    device_id: Option<Uuid>,
}

impl Event {
    /// What one holds in memory, at most, if its text is of [`EVENT_BYTES_MAX`].
    pub const HELD_BYTES_MAX: usize =
        size_of::<Self>() + 2 * size_of::<usize>() + 3 * EVENT_BYTES_MAX + ENCODINGS_BYTES_MAX;

    /// Reads a notification's payload as far as routing needs it and keeps its text.
    ///
    /// # Errors
    /// [`MalformedEvent`] when it is not a JSON object with a known `type` and a UUID `user_id`.
    pub fn parse(payload: &str) -> Result<Self, MalformedEvent> {
        Notification::parse(payload).map(|told| Self::new(told, 0, None))
    }

    /// What was told, at this place in the order of routing.
    #[must_use]
    pub fn new(told: Notification<'_>, sequence: u64, passed: Option<Arc<Cursor>>) -> Self {
        Self {
            user_id: told.user_id,
            kind: told.kind,
            id: told.id,
            sequence,
            passed,
            plain: Frame::text(told.text),
            envelope: OnceLock::new(),
            v1: OnceLock::new(),
        }
    }

    /// What tells every connected v1 client to fetch its state anew.
    #[must_use]
    pub fn reset(reason: ResetReason, passed: Option<Arc<Cursor>>) -> Self {
        let cursor = passed.as_ref().map(ToString::to_string);
        let notice = Notice::Reset {
            reason,
            cursor: cursor.as_deref(),
        };
        Self {
            passed,
            ..Self::of_nobody(EventKind::Reset(reason), notice.frame())
        }
    }

    /// What makes connections look whether something else has changed.
    #[must_use]
    pub fn wake() -> Self {
        Self::of_nobody(EventKind::Wake, Frame::text(""))
    }

    fn of_nobody(kind: EventKind, plain: Frame) -> Self {
        Self {
            user_id: Uuid::nil(),
            kind,
            id: None,
            sequence: 0,
            passed: None,
            plain,
            envelope: OnceLock::new(),
            v1: OnceLock::new(),
        }
    }

    /// Whether it is no change, and only for v1 clients.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        matches!(self.kind, EventKind::Reset(_))
    }

    /// Whether it closes the connections of this device, or of a client whose device is not known.
    #[must_use]
    pub fn revokes(&self, device_id: Option<Uuid>) -> bool {
        if self.kind != EventKind::Revocation {
            return false;
        }
        // What cannot be read closes too: better a connection too many than one too few.
        serde_json::from_slice::<Revocation>(self.plain.payload()).map_or(true, |gone| {
            gone.device_id.is_none() || gone.device_id == device_id
        })
    }

    /// The frame that carries this event. Encoded at most once for each encoding; a clone shares the
    /// bytes.
    #[must_use]
    pub fn frame(&self, encoding: Encoding) -> Frame {
        match encoding {
            Encoding::Plain => self.plain.clone(),
            Encoding::Envelope => self
                .envelope
                .get_or_init(|| {
                    let (kind, plain) = (self.kind.as_str(), self.plain.as_text());
                    Frame::text(&format!(r#"{{"event_type":"{kind}","payload":{plain}}}"#))
                })
                .clone(),
            Encoding::V1 => self.v1.get_or_init(|| self.with_cursor()).clone(),
        }
    }

    fn with_cursor(&self) -> Frame {
        match (&self.passed, self.plain.as_text().strip_suffix('}')) {
            (Some(cursor), Some(open)) if !self.is_reset() => {
                Frame::text(&format!(r#"{open}, "cursor" : "{cursor}"}}"#))
            }
            _ => self.plain.clone(),
        }
    }
}

/// Why a client has to fetch its state anew, as `reason` in [`Notice::Reset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// `since` is no cursor that this service gave out.
    Malformed,
    /// The cursor is of another database, or of its history before a failover.
    History,
    /// The cursor is of a future that has not been.
    Future,
    /// The log no longer reaches back to the cursor.
    Retention,
    /// Events may have been missed, and this database has no log to read them from.
    NoLog,
}

impl ResetReason {
    /// Every reason, in the order of its discriminants.
    pub const ALL: [Self; 5] = [
        Self::Malformed,
        Self::History,
        Self::Future,
        Self::Retention,
        Self::NoLog,
    ];

    /// The value of `reason`, and of the label in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::History => "history",
            Self::Future => "future",
            Self::Retention => "retention",
            Self::NoLog => "no_log",
        }
    }
}

/// What the server tells a client besides events: a v1 client, or one that has asked.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notice<'a> {
    /// The first frame: the subscription is live.
    Hello {
        /// Names this connection in the server's log.
        connection_id: Uuid,
        /// Where the client is: the cursor that it came with, or the present.
        cursor: Option<&'a str>,
        /// A frame comes at least this often; when none has for twice as long, the link is dead.
        heartbeat_ms: u32,
        /// Whether the client goes on from the cursor that it came with.
        resumed: bool,
        /// How many events follow that were committed before now.
        replayed: u64,
    },
    /// The state must be fetched anew; then it goes on from `cursor`.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The present.
        cursor: Option<&'a str>,
    },
    /// Everything up to `cursor` has been sent. Comes after a replay, and as the heartbeat.
    Cursor {
        /// The newest barrier passed.
        cursor: Option<&'a str>,
    },
    /// The server is ending: come back, to another, after this long. Until then events come.
    Goaway {
        /// This client's own time.
        retry_after_ms: u64,
    },
    /// The token that the client sent takes the place of the one before.
    Authenticated {
        /// For how long it is good.
        expires_in_ms: Option<u64>,
    },
    /// What the client sent could not be done; nothing else has changed.
    Error {
        /// Why, for programs.
        code: &'a str,
        /// Why, for people.
        message: &'a str,
    },
}

impl Notice<'_> {
    /// The frame that says it.
    ///
    /// # Panics
    /// Never: every field is JSON.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let text = serde_json::to_string(self)
            .unwrap_or_else(|error| unreachable!("a notice is no JSON: {error}"));
        Frame::text(&text)
    }
}

/// What a client may say.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ClientFrame {
    /// `{"type":"ping"}`: answered with [`Answer::Pong`].
    Ping,
    /// `{"type":"auth","token":…}`: a token that is good for longer, answered with
    /// [`Notice::Authenticated`] or [`Notice::Error`].
    Auth {
        /// The token.
        token: Secret,
    },
    /// Any other type: answered with [`Answer::UnknownType`].
    #[serde(other)]
    Unknown,
}

impl ClientFrame {
    /// Reads a client's text frame.
    ///
    /// # Errors
    /// The reason why it is not a JSON object with a `type`; the connection closes with
    /// [`CloseCode::Malformed`].
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        object(text)
    }
}

/// Reads a JSON object. serde would take an array of its values as well.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        Err(serde::de::Error::custom("it is no JSON object"))
    }
}

/// What the server answers to a [`ClientFrame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `{"type":"pong"}`
    Pong,
    /// `{"type":"error","code":"unknown_type",…}`
    UnknownType,
}

impl Answer {
    /// The frame that says it.
    #[must_use]
    pub fn frame(self) -> Frame {
        Frame::text(match self {
            Self::Pong => r#"{"type":"pong"}"#,
            Self::UnknownType => {
                r#"{"type":"error","code":"unknown_type","message":"this server knows the types ping and auth"}"#
            }
        })
    }
}

#[cfg(test)]
mod tests;
