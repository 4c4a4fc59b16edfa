//! What the service counts and exposes to Prometheus.
//!
//! `registry.rs` declares each series once: its help text, kind, name and labels. A new series needs its
//! declaration and the call that counts. The values of labels come from enums, from the settings or, for kinds of
//! events, from the database's registered sources, at most 256; never from an event, a user or an address. Each series is
//! exposed from the start on, at zero, but for a kind that a source brings later.
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
pub use self::series::{Age, BuildInfo, Counter, CounterBy, CounterByNumber, Flag, FlagBy};
pub use self::series::{Level, LogLinesDropped, WindowMaximum};
