//! The frames that the server sends besides events.

use hushnet_websocket::Frame;
use serde::Serialize;
use uuid::Uuid;

use super::ResetReason;

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
