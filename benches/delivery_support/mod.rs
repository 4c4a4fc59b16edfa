//! The parts of `delivery`, and what they share.

pub(crate) mod burst;
pub(crate) mod client;
pub(crate) mod cold;
pub(crate) mod latency;
pub(crate) mod report;
pub(crate) mod stack;
pub(crate) mod storm;
