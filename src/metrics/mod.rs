//! Every series that the service exposes, declared once with its description.

mod counts;
mod registry;
mod series;

pub use self::registry::{Metrics, Rejected, ReplayCause, ReplaySource};
