//! The way of an event in HushNet's own realtime server, kept to be measured against.
//!
//! One channel of 100 for all: every connection gets a copy of every event, compares the user in
//! its parsed JSON with its own, and writes the JSON again if they match. A connection is
//!
//! ```text
//! while let Ok(event) = receiver.recv().await {
//!     if let Some(frame) = event.frame_for(&user_id) { /* send it to the socket */ }
//! }
//! ```
//!
//! and so ends for good when it falls behind. Written from the specification's description, without
//! its repetitions; what an event costs here, it costs there.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

/// What the predecessor asks of tokio, which rounds it up to 128 slots.
pub(crate) const CHANNEL_CAPACITY: usize = 100;

/// An event as the channel carries it: each receiver clones all of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RealtimeEvent {
    event_type: String,
    payload: Value,
}

impl RealtimeEvent {
    /// Reads a notification's payload; `None` if it is not JSON with a `type`.
    pub(crate) fn parse(payload: &str) -> Option<Self> {
        let payload: Value = serde_json::from_str(payload).ok()?;
        let event_type = payload.get("type")?.as_str()?.to_owned();
        Some(Self {
            event_type,
            payload,
        })
    }

    /// The text of the frame if the event is for that user.
    pub(crate) fn frame_for(&self, user_id: &str) -> Option<String> {
        let target = self.payload.get("user_id").and_then(Value::as_str);
        if target.unwrap_or_default() != user_id {
            return None;
        }
        serde_json::to_string(self).ok()
    }
}

/// The channel that every connection subscribes to.
pub(crate) fn channel() -> broadcast::Sender<RealtimeEvent> {
    broadcast::channel(CHANNEL_CAPACITY).0
}
