//! Why a row of the log is skipped.

use enum_map::Enum;
use strum::IntoStaticStr;

/// Why an event of the log reaches nobody. The name is the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum SkippedRow {
    /// Its JSON is none that our triggers write.
    Malformed,
    /// `realtime.sources` has no row of its source's number, or one whose layout this release cannot read, or one of
    /// other fields than the event's.
    UnknownSource,
}
