//! What reaches a connection: an event, a revocation, a reset, or a wake-up.

use std::sync::Arc;

use hushnet_websocket::Frame;
use uuid::Uuid;

use super::event::ENCODINGS_BYTES_MAX;
use super::{
    Cursor, EVENT_BYTES_MAX, Encoding, Event, Notice, Notification, ResetReason, Sequence, Subject,
    Xid,
};

/// What the hub hands to a user's connections. All of them share one allocation.
#[derive(Debug)]
pub enum Signal {
    /// A change that the user's clients are sent.
    Event(Event),
    /// A device or a user was deleted.
    Revocation(Revocation),
    /// Every v1 client has to fetch its state anew.
    Reset(Reset),
    /// The time or the server's state has changed: look at the deadlines.
    Wake,
    /// The wall clock was changed, or the machine was suspended: see when the proof expires.
    ClockChanged,
    /// An event had no room among what is alive: the connection is behind, as if its channel had no room.
    Behind,
}

impl Signal {
    /// The memory of an event's signal whose text has [`EVENT_BYTES_MAX`] bytes and that was encoded in all ways.
    pub const HELD_BYTES_MAX: usize =
        size_of::<Self>() + 2 * size_of::<usize>() + 3 * EVENT_BYTES_MAX + ENCODINGS_BYTES_MAX;

    /// The signal of a notification. `sequence` is `None` for a row that was read from the log for a single
    /// client; `cursor` is the one that the client may keep once it has this signal.
    #[must_use]
    #[inline]
    pub fn new(
        notification: Notification<'_>,
        sequence: Option<Sequence>,
        cursor: Option<Arc<Cursor>>,
    ) -> Self {
        match notification.subject {
            Subject::Event(kind) => {
                let event = Event::new(
                    kind,
                    notification.id,
                    notification.xid,
                    notification.open_text,
                    sequence,
                    cursor,
                );
                Self::Event(event.in_log(notification.in_log))
            }
            Subject::Revocation { device_id } => Self::Revocation(Revocation {
                device_id,
                xid: notification.xid,
                sequence,
                cursor,
            }),
        }
    }

    /// Its position in the order of routing; `None` for a wake-up, and for what was read from the log for a
    /// single client.
    #[must_use]
    #[inline]
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Event(event) => event.sequence,
            Self::Revocation(revocation) => revocation.sequence,
            Self::Reset(reset) => Some(reset.sequence),
            Self::Wake | Self::ClockChanged | Self::Behind => None,
        }
    }

    /// The transaction that has written it, where that is known.
    #[must_use]
    #[inline]
    pub fn xid(&self) -> Option<Xid> {
        match self {
            Self::Event(event) => event.xid,
            Self::Revocation(revocation) => revocation.xid,
            Self::Reset(_) | Self::Wake | Self::ClockChanged | Self::Behind => None,
        }
    }

    /// The cursor that the client may keep once it has this signal; `None` where there is no log.
    #[must_use]
    #[inline]
    pub fn cursor(&self) -> Option<&Arc<Cursor>> {
        match self {
            Self::Event(event) => event.cursor.as_ref(),
            Self::Revocation(revocation) => revocation.cursor.as_ref(),
            Self::Reset(reset) => reset.cursor.as_ref(),
            Self::Wake | Self::ClockChanged | Self::Behind => None,
        }
    }

    /// The frame that carries this signal to a client of this encoding; `None` if such a client is sent
    /// nothing. The bytes are encoded at most once for each encoding and shared.
    #[must_use]
    #[inline]
    pub fn frame(&self, encoding: Encoding) -> Option<Frame> {
        match self {
            Self::Event(event) => Some(event.frame(encoding)),
            Self::Reset(reset) if encoding == Encoding::V1 => Some(reset.frame.clone()),
            Self::Reset(_)
            | Self::Revocation(_)
            | Self::Wake
            | Self::ClockChanged
            | Self::Behind => None,
        }
    }
}

/// A device or a user was deleted. Clients are sent nothing; their connections are closed.
#[derive(Debug)]
pub struct Revocation {
    /// The device; `None` if the user was deleted, or if the notification named no readable device.
    pub device_id: Option<Uuid>,
    /// The transaction that has written it, where that is known.
    pub xid: Option<Xid>,
    /// Its position in the order of routing; `None` for one that was read from the log for one client.
    pub sequence: Option<Sequence>,
    /// The cursor that goes with it, as with an event.
    pub cursor: Option<Arc<Cursor>>,
}

impl Revocation {
    /// Whether a connection of this device has to be closed. A connection whose device is not known is closed
    /// only when the user is gone.
    #[must_use]
    pub fn concerns(&self, device_id: Option<Uuid>) -> bool {
        self.device_id.is_none() || self.device_id == device_id
    }
}

/// The stream has a gap for every user: v1 clients fetch their state anew and go on from `cursor`.
#[derive(Debug)]
pub struct Reset {
    /// Why.
    pub reason: ResetReason,
    /// Its position in the order of routing.
    pub sequence: Sequence,
    /// Where clients go on from; `None` where there is no log.
    pub cursor: Option<Arc<Cursor>>,
    frame: Frame,
}

impl Reset {
    /// A reset that takes this position in the order of routing.
    #[must_use]
    pub fn new(reason: ResetReason, sequence: Sequence, cursor: Option<Arc<Cursor>>) -> Self {
        let text = cursor.as_ref().map(ToString::to_string);
        let notice = Notice::Reset {
            reason,
            cursor: text.as_deref(),
        };
        Self {
            reason,
            sequence,
            frame: notice.frame(),
            cursor,
        }
    }
}
