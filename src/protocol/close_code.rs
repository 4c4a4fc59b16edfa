//! The close codes, and after which of them a client connects again.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use enum_map::{Enum, EnumMap};
use strum::IntoStaticStr;

use super::Label;
use super::error_body::{ErrorBody, RETRY_AFTER};

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

    /// The `code` in the reason on the wire, and the value of the label `reason` in the metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.into()
    }

    /// What the client's developer needs to know.
    fn message(self) -> &'static str {
        match self {
            Self::Protocol => "the WebSocket protocol was broken",
            Self::Unsupported => "only text frames are read",
            Self::Malformed => "a text frame must be a JSON object with a type",
            Self::TooBig => "the frame or message is too long",
            Self::Restart => "this server is ending; others are there",
            Self::TryAgainLater => "the database is away; come back with the same cursor",
            Self::Unauthenticated => "the proof of identity was refused",
            Self::Revoked => "the device or the user was deleted",
            Self::TokenExpired => "come back with a new token",
            Self::SlowConsumer => "nothing was read for too long",
            Self::IdleTimeout => "no answer to a ping",
            Self::RateLimited => "too many frames in a second",
        }
    }

    /// The time after which the client may connect again, where the server names one.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        matches!(self, Self::TryAgainLater | Self::RateLimited).then_some(RETRY_AFTER)
    }

    /// The reason on the wire: [`ErrorBody`] as JSON, at most 123 bytes.
    #[must_use]
    pub fn told_reason(self) -> &'static str {
        static REASONS: LazyLock<EnumMap<CloseCode, String>> = LazyLock::new(|| {
            EnumMap::from_fn(|code: CloseCode| {
                ErrorBody::new(code.reason(), code.message(), code.retry_after()).json()
            })
        });
        &REASONS[self]
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
            .skip_while(|line| *line != "| close code | `code` | come back? |")
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

    /// RFC 6455 leaves 123 bytes to the reason.
    #[test]
    fn each_reason_is_the_form_of_every_refusal_and_fits_into_its_frame() {
        for close in CloseCode::all() {
            let reason = close.told_reason();
            assert!(reason.len() <= 123, "{reason}");
            let body: serde_json::Value = serde_json::from_str(reason).unwrap();
            assert_eq!(body["code"], close.reason());
            assert!(body["message"].as_str().unwrap().contains(' '), "{reason}");
            let wait = close.retry_after().map(|wait| wait.as_millis());
            assert_eq!(body["retry_after_ms"].as_u64().map(u128::from), wait);
            // A client that is to wait may come back.
            assert!(wait.is_none() || close.reconnect());
        }
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
