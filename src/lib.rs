//! hushnet-realtime

pub mod config;
pub mod hub;
pub mod metrics;
pub mod wire;
