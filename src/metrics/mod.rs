//! What the service counts and exposes to Prometheus.
//!
//! `registry.rs` declares each series once: its help text, kind, name and labels. A new series needs its
//! declaration and the call that counts. The values of labels come from enums, never from a user or an address:
//! the number of series is fixed at the start, and each series is exposed from then on, at zero.
//! Counting never blocks and never fails.

mod declare;
mod labels;
mod panics;
mod recorder;
mod registry;
mod series;

pub use self::labels::{Labels, Panicked, Rejected, Replay, ReplayCause, ReplaySource};
pub use self::panics::panic_message;
pub use self::registry::Metrics;
pub use self::series::{Age, BuildInfo, Counter, CounterBy, Flag, FlagBy};
pub use self::series::{Level, LogLinesDropped, WindowMaximum};
