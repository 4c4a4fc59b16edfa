//! Rows of the log that are for all users: something has changed of which there is no event.

use serde::Deserialize;

use super::ResetReason;

/// Why something has changed of which there is no event. Every v1 client fetches its state anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// A table was emptied with TRUNCATE.
    Truncated,
    /// The event of a row could not be made.
    EventFailed {
        /// The number of its source.
        source: i16,
        /// PostgreSQL's code of the error.
        sqlstate: String,
    },
}

impl Gap {
    /// The gap that this payload of the log is; `None` if it is an event's.
    #[must_use]
    pub fn of_row(payload: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Row {
            Truncated,
            EventFailed { source: i16, sqlstate: String },
        }
        Some(match serde_json::from_str(payload).ok()? {
            Row::Truncated => Self::Truncated,
            Row::EventFailed { source, sqlstate } => Self::EventFailed { source, sqlstate },
        })
    }
}

impl ResetReason {
    /// Why a client is reset that has missed a row for all users of this kind.
    #[must_use]
    pub fn of_row_for_all(kind: &str) -> Self {
        match kind {
            "event_failed" => Self::EventFailed,
            _ => Self::Truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_all_users_is_known_by_its_type() {
        let truncated = r#"{"type" : "truncated", "table" : "messages", "id" : 7}"#;
        assert_eq!(Gap::of_row(truncated), Some(Gap::Truncated));
        let failed = r#"{"type" : "event_failed", "source" : 16, "sqlstate" : "22P02", "id" : 8}"#;
        let sqlstate = "22P02".to_owned();
        let gap = Gap::EventFailed {
            source: 16,
            sqlstate,
        };
        assert_eq!(Gap::of_row(failed), Some(gap));
        for other in [
            r#"{"type":"event_failed","id":8}"#,
            r#"{"type":"x"}"#,
            "",
            "[]",
        ] {
            assert_eq!(Gap::of_row(other), None, "{other}");
        }
    }
}
