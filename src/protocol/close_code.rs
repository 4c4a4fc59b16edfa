//! The close codes, and after which of them a client connects again.

use std::fmt;

use enum_map::Enum;
use strum::IntoStaticStr;

use super::Label;

/// The codes with which the server closes a WebSocket of its own accord.
///
/// The table in `docs/protocol.md` is this one; a test compares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CloseCode {
    /// 1002: the client broke the WebSocket protocol.
    #[strum(serialize = "protocol_error")]
    Protocol,
    /// 1003: a binary frame; this server reads only text.
    #[strum(serialize = "unsupported_data")]
    Unsupported,
    /// 1007: a text frame that is not UTF-8 or not a JSON object with a `type`.
    Malformed,
    /// 1009: a frame or message over `frame_bytes_max`.
    TooBig,
    /// 1012: the server is stopping.
    Restart,
    /// 1013: what the client has missed, or who it is, cannot be found out now; its cursor stays good.
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
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
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
        self.into()
    }

    /// The code with this number.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::all().find(|close| close.code() == code)
    }

    /// Whether a client that gets this code should connect again by itself. After the other codes it would be
    /// refused again for the same mistake.
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
    fn the_protocol_s_table_has_every_close_code_and_no_other() {
        let protocol = include_str!("../../docs/protocol.md");
        let rows: Vec<_> = protocol
            .lines()
            .skip_while(|line| *line != "| close code | reason | come back? |")
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        // The answer to a client's own close frame.
        let mut wanted = vec!["| 1000 | `normal` | no |".to_owned()];
        wanted.extend(CloseCode::all().map(|close| {
            let again = if close.reconnect() { "yes" } else { "no" };
            format!("| {} | `{}` | {again} |", close.code(), close.reason())
        }));
        assert_eq!(rows, wanted);
    }

    #[test]
    fn a_code_is_found_by_its_number_and_printed_with_its_reason() {
        for close in CloseCode::all() {
            assert_eq!(CloseCode::from_code(close.code()), Some(close));
        }
        assert_eq!(CloseCode::from_code(1000), None);
        let printed = CloseCode::SlowConsumer.to_string();
        assert_eq!(printed, "4008 slow_consumer");
    }
}
