//! Why a follower reads the log for its shards.

use enum_map::Enum;
use strum::IntoStaticStr;

/// Why a shard is repaired. The name is the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RepairCause {
    /// Its users came: it was not held before.
    Taken,
    /// A batch is missing.
    Gap,
    /// The connection to the bus broke, or the bus has dropped messages.
    Broken,
    /// Another leader publishes.
    NewRun,
    /// A batch says that something is in the log that it does not carry.
    InLog,
    /// No mark came over the shard's subscription, and it was subscribed again.
    Silent,
    /// More came during a repair than is held.
    Overflow,
    /// The read of the log failed.
    Failed,
}
