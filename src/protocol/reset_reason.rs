//! Why a client has to fetch its state anew.

use enum_map::Enum;
use serde::Serialize;
use strum::IntoStaticStr;

/// Why a client has to fetch its state anew, as `reason` in [`Notice::Reset`](super::Notice::Reset).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, IntoStaticStr, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// `since` is no cursor that this service gave out.
    Malformed,
    /// The cursor is of another database, or of its history before a failover.
    History,
    /// The cursor is of a future that has not been.
    Future,
    /// The log no longer reaches back to the cursor.
    Retention,
    /// A table was emptied with TRUNCATE, which makes no event for its rows.
    Truncated,
    /// The event of a row could not be made.
    EventFailed,
    /// Events may have been missed, and this database has no log to read them from.
    NoLog,
}
