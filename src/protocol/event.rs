//! One event for one user, and the frames that carry it.

use std::sync::{Arc, OnceLock};

use hushnet_websocket::Frame;

use super::{Cursor, Held, InLog, Kind, Sequence, WantedKinds, Xid};

/// An event's JSON as the triggers of `migrate up` write it, at most: a session's, of four ids.
pub const EVENT_BYTES_MAX: usize = 512;
/// What the three encodings of an event add to its text: frame headers, an envelope, the longest cursor.
pub(super) const ENCODINGS_BYTES_MAX: usize = 400;

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
    /// What it is about.
    pub kind: Kind,
    /// Its row in the log; `None` from a database that has only HushNet's own triggers.
    pub id: Option<i64>,
    /// The transaction that has written it, where that is known.
    pub xid: Option<Xid>,
    /// Its position in the order of routing; `None` for an event that was read from the log for one client.
    pub sequence: Option<Sequence>,
    /// The cursor that a client may keep once it has this event; `None` where there is no log.
    pub cursor: Option<Arc<Cursor>>,
    /// Where the log has the rest of a large event.
    pub in_log: Option<Box<InLog>>,
    plain: Frame,
    envelope: OnceLock<Frame>,
    v1: OnceLock<Frame>,
    #[allow(dead_code, reason = "held for its drop")]
    held: Option<Box<Held>>,
}

impl Event {
    /// The event whose JSON is `open_text` and a closing brace.
    #[must_use]
    #[inline]
    pub fn new(
        kind: Kind,
        id: Option<i64>,
        xid: Option<Xid>,
        open_text: &str,
        sequence: Option<Sequence>,
        cursor: Option<Arc<Cursor>>,
    ) -> Self {
        Self {
            kind,
            id,
            xid,
            sequence,
            cursor,
            in_log: None,
            plain: Frame::text_of_two(open_text, "}"),
            envelope: OnceLock::new(),
            v1: OnceLock::new(),
            held: None,
        }
    }

    /// The same, with the rest of it in the log.
    #[must_use]
    pub fn in_log(self, in_log: Option<InLog>) -> Self {
        Self {
            in_log: in_log.map(Box::new),
            ..self
        }
    }

    /// The same, counted among what is alive.
    #[must_use]
    pub fn held(self, held: Held) -> Self {
        Self {
            held: Some(Box::new(held)),
            ..self
        }
    }

    /// The frame that carries this event to one client, with the event's whole JSON, which lacks its closing brace.
    #[must_use]
    pub fn frame_of(&self, encoding: Encoding, open_text: &str) -> Frame {
        match (encoding, &self.cursor) {
            (Encoding::Envelope, _) => {
                let kind = self.kind.name_in(open_text);
                Frame::text(&format!(
                    r#"{{"event_type":"{kind}","payload":{open_text}}}}}"#
                ))
            }
            (Encoding::V1, Some(cursor)) => {
                let end = format!(r#", "cursor" : "{cursor}"}}"#);
                Frame::text_of_two(open_text, &end)
            }
            _ => Frame::text_of_two(open_text, "}"),
        }
    }

    /// The frame that carries this event. It is encoded at most once for each encoding; a clone shares the
    /// bytes.
    #[must_use]
    #[inline]
    pub fn frame(&self, encoding: Encoding) -> Frame {
        match encoding {
            Encoding::Plain => self.plain.clone(),
            Encoding::Envelope => self
                .envelope
                .get_or_init(|| {
                    let plain = self.plain.as_text();
                    let kind = self.kind.name_in(plain);
                    Frame::text(&format!(r#"{{"event_type":"{kind}","payload":{plain}}}"#))
                })
                .clone(),
            Encoding::V1 => self.v1.get_or_init(|| self.with_cursor()).clone(),
        }
    }

    /// Whether it is of one of these kinds.
    #[must_use]
    pub fn is_of(&self, kinds: &WantedKinds) -> bool {
        kinds.admit(self.kind, self.plain.as_text())
    }

    fn with_cursor(&self) -> Frame {
        match (&self.cursor, self.plain.as_text().strip_suffix('}')) {
            (Some(cursor), Some(open)) => {
                Frame::text(&format!(r#"{open}, "cursor" : "{cursor}"}}"#))
            }
            _ => self.plain.clone(),
        }
    }
}
