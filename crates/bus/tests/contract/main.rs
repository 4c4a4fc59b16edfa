//! The contract of the bus, held against both brokers: real servers, each test with its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod faults;
mod messages;
mod node;
mod proxied;
mod refusals;
mod rights;
mod tls;
