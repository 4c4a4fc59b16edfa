//! The frames that a client may send, and the answers to them.

use hushnet_websocket::Frame;
use serde::Deserialize;

use super::Secret;
use super::json::object;

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
    /// [`CloseCode::Malformed`](super::CloseCode::Malformed).
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        object(text)
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
