//! The close codes, each with whether to come back.

use std::fmt;

/// The codes with which the server closes a WebSocket.
///
/// The table in `docs/protocol.md` is this one; a test compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// 1000: answer to the client's own close.
    Normal,
    /// 1002: the client broke the WebSocket protocol.
    Protocol,
    /// 1003: a binary frame; this server reads only text.
    Unsupported,
    /// 1007: a text frame that is not UTF-8 or not a JSON object with a `type`.
    Malformed,
    /// 1009: a frame or message over `frame_bytes_max`.
    TooBig,
    /// 1012: the server is stopping.
    Restart,
    /// 1013: the server cannot tell now what the client has missed; its cursor stays good.
    TryAgainLater,
    /// 4001: the client has not proven who it is.
    Unauthenticated,
    /// 4003: the device or the user was deleted.
    Revoked,
    /// 4004: the token has expired; come back with a new one.
    TokenExpired,
    /// 4008: the client did not read for `write_timeout_ms`.
    SlowConsumer,
    /// 4009: no answer to a ping within `pong_timeout_ms`.
    IdleTimeout,
    /// 4029: more than `client_frames_per_second`.
    RateLimited,
}

impl CloseCode {
    /// Every code, in ascending order.
    pub const ALL: [Self; 13] = [
        Self::Normal,
        Self::Protocol,
        Self::Unsupported,
        Self::Malformed,
        Self::TooBig,
        Self::Restart,
        Self::TryAgainLater,
        Self::Unauthenticated,
        Self::Revoked,
        Self::TokenExpired,
        Self::SlowConsumer,
        Self::IdleTimeout,
        Self::RateLimited,
    ];

    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::Malformed => 1007,
            Self::TooBig => 1009,
            Self::Restart => 1012,
            Self::TryAgainLater => 1013,
            Self::Unauthenticated => 4001,
            Self::Revoked => 4003,
            Self::TokenExpired => 4004,
            Self::SlowConsumer => 4008,
            Self::IdleTimeout => 4009,
            Self::RateLimited => 4029,
        }
    }

    /// The reason on the wire, and the value of the label `reason` in the metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Protocol => "protocol_error",
            Self::Unsupported => "unsupported_data",
            Self::Malformed => "malformed",
            Self::TooBig => "too_big",
            Self::Restart => "restart",
            Self::TryAgainLater => "try_again_later",
            Self::Unauthenticated => "unauthenticated",
            Self::Revoked => "revoked",
            Self::TokenExpired => "token_expired",
            Self::SlowConsumer => "slow_consumer",
            Self::IdleTimeout => "idle_timeout",
            Self::RateLimited => "rate_limited",
        }
    }

    /// Whether a client that gets this code should connect again by itself. After the others it
    /// would only be refused again for the same mistake.
    #[must_use]
    pub fn reconnect(self) -> bool {
        matches!(
            self,
            Self::Restart
                | Self::TryAgainLater
                | Self::TokenExpired
                | Self::SlowConsumer
                | Self::IdleTimeout
                | Self::RateLimited
        )
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_lists_every_close_code() {
        let protocol = include_str!("../../docs/protocol.md");
        for close in CloseCode::ALL {
            let again = if close.reconnect() { "yes" } else { "no" };
            let row = format!("| {} | `{}` | {again} |", close.code(), close.reason());
            assert!(
                protocol.contains(&row),
                "docs/protocol.md lacks the row {row}"
            );
        }
    }
}
