//! hushnet-realtime carries every committed PostgreSQL row change that concerns a user to every
//! device of that user, over WebSocket.
//!
//! The way of an event, which is also the order of the modules:
//!
//! | module | owns |
//! |---|---|
//! | [`app`] | the only wiring: builds everything, owns every task, drains in order |
//! | [`listener`] | PostgreSQL's notifications, from LISTEN to the hub |
//! | [`log`] | the statements that read `realtime.events` |
//! | [`http`] | the routes, and the loop that accepts connections |
//! | [`connection`] | one WebSocket client's life |
//! | [`socket`] | a WebSocket over an accepted TCP stream |
//! | [`latency`] | how old events are when they are delivered, by sample |
//! | [`hub`] | who is connected, and the way of an event to them |
//! | [`wire`] | events, frames and close codes; the only place that parses and serializes |
//! | [`metrics`] | every series, declared once |
//! | [`config`] | every setting, with its bounds |
//! | [`migrate`], [`embedded`] | the schema; the private PostgreSQL of `run` and of the tests |
//!
//! What holds everywhere, and where it is shown:
//! - imports point only downward in this table;
//! - no map guard is held across an await (`clippy.toml`), and no unsafe code is written
//!   (`Cargo.toml`);
//! - every task is tracked and joined, or dropped, by [`app::run`];
//! - every queue, buffer and map has a named bound;
//! - labels of metrics come from closed enums, never from a user or an address.

pub mod app;
pub mod barrier;
pub mod config;
pub mod connection;
pub mod cursor;
pub mod doorbell;
pub mod embedded;
pub mod http;
pub mod hub;
pub mod latency;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod migrate;
pub mod pace;
pub mod pending;
pub mod recent;
pub mod router;
pub mod socket;
pub mod wire;
