//! What the service counts and exposes to Prometheus.
//!
//! `registry.rs` declares each series once: its name, help text and labels. A new series is its declaration and
//! the call that counts. Labels come from closed enums, never from a user or an address, so the number of series
//! is fixed at the start, and each is there at zero from then on.

mod declare;
mod labels;
mod recorder;
mod registry;
mod series;

pub use self::labels::{Labels, Panicked, Rejected, Replay, ReplayCause, ReplaySource};
pub use self::registry::Metrics;
pub use self::series::{BuildInfo, Counter, CounterBy, Flag, Level, WindowMaximum};
