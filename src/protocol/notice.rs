//! The frames that the server sends besides events.

use hushnet_websocket::Frame;
use serde::Serialize;
use uuid::Uuid;

use super::{ErrorBody, ResetReason};

/// A frame for a v1 client, or an answer to a client that has asked.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notice<'a> {
    /// The first frame: the subscription is live.
    Hello {
        /// Names this connection in the server's log.
        connection_id: Uuid,
        /// The cursor that the client came with, or the newest one.
        cursor: Option<&'a str>,
        /// A frame comes at least this often. If none has come for twice as long, the link is dead.
        heartbeat_ms: u32,
        /// Whether the client goes on from the cursor that it came with.
        resumed: bool,
        /// The number of missed events that follow.
        replayed: u64,
        /// The time until the token expires. Left out where nothing expires.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in_ms: Option<u64>,
    },
    /// The client must fetch its state anew, and goes on from `cursor`.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The newest cursor.
        cursor: Option<&'a str>,
    },
    /// Everything up to `cursor` has been sent. Sent after a replay, and as the heartbeat.
    Cursor {
        /// The newest completed barrier.
        cursor: Option<&'a str>,
    },
    /// The server is ending. The client gets events until its time, and then connects to another server.
    Goaway {
        /// This client's own time, from now.
        retry_after_ms: u64,
    },
    /// The token that the client sent replaces the one before.
    Authenticated {
        /// The time until the token expires.
        expires_in_ms: Option<u64>,
    },
    /// The client's request was refused. Nothing else has changed.
    Error(ErrorBody<'a>),
}

impl Notice<'_> {
    /// The frame.
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
