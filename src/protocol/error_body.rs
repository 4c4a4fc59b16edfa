//! The one form of every refusal: why, and how long to wait.

use std::time::Duration;

use serde::Serialize;

/// Until a client may try again that is refused for a cause that passes by itself.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a client is refused: the object `error` of an HTTP answer, the fields of a frame of type `error`, and the
/// reason of a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ErrorBody<'a> {
    /// For programs.
    pub code: &'a str,
    /// For the client's developer.
    pub message: &'a str,
    /// After this time the same may succeed; missing where waiting does not help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl<'a> ErrorBody<'a> {
    /// The time is rounded up, so that no client comes back too early.
    #[must_use]
    pub fn new(code: &'a str, message: &'a str, retry_after: Option<Duration>) -> Self {
        let ms = |wait: Duration| wait.as_nanos().div_ceil(1_000_000).max(1);
        Self {
            code,
            message,
            retry_after_ms: retry_after.map(|wait| u64::try_from(ms(wait)).unwrap_or(u64::MAX)),
        }
    }

    /// The time in whole seconds, as the header `Retry-After` has it.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_ms.map(|ms| ms.div_ceil(1_000))
    }

    /// The object.
    ///
    /// # Panics
    /// Never: every field is JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|error| unreachable!("a refusal is no JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_never_told_to_come_back_too_early() {
        for (us, ms, seconds) in [
            (0, 1, 1),
            (1, 1, 1),
            (1_001, 2, 1),
            (1_000_000, 1_000, 1),
            (1_000_001, 1_001, 2),
            (10_000_000, 10_000, 10),
        ] {
            let body = ErrorBody::new("code", "message", Some(Duration::from_micros(us)));
            assert_eq!(body.retry_after_ms, Some(ms), "{us}");
            assert_eq!(body.retry_after_s(), Some(seconds), "{us}");
        }
        let body = ErrorBody::new("code", "a message", None);
        assert_eq!(body.json(), r#"{"code":"code","message":"a message"}"#);
        assert_eq!(body.retry_after_s(), None);
    }
}
