//! One event for one user, and the frames that carry it.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use uuid::Uuid;

use super::{Cursor, EventKind, MalformedEvent, Notice, Notification, ResetReason};
use crate::frame::Frame;

/// An event's JSON as the triggers of `migrate up` write it, at most: a session's, of four ids.
pub const EVENT_BYTES_MAX: usize = 512;
/// What its three encodings add to it: their headers, an envelope, the longest cursor that is given out.
const ENCODINGS_BYTES_MAX: usize = 400;

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
