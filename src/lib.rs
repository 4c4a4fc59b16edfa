//! hushnet-realtime carries every committed PostgreSQL row change that concerns a user to every
//! device of that user, over WebSocket.
//!
//! The way of an event, which is also the order of the modules:
//!
//! | module | owns |
//! |---|---|
//! | [`app`] | the only wiring: builds everything, owns every task, drains in order |
//! | [`ceiling`] | what the process's memory stays under |
//! | [`http`] | the routes, and the loop that accepts connections |
//! | [`connection`] | one WebSocket client's life |
//! | [`socket`], [`transport`] | a WebSocket over an accepted connection, plain or TLS |
//! | [`listener`] | PostgreSQL's notifications, from LISTEN to the router, without a gap |
//! | [`injector`] | notifications without a database, for benchmarks alone |
//! | [`pace`], [`doorbell`] | when the log is read instead, and who says so |
//! | [`barrier`] | how far the feed is, and whether it lives at all |
//! | [`router`] | the order of events, and the position |
//! | [`recent`] | the newest events, for who comes back |
//! | [`clock`] | the time, and when a connection is woken to look at it |
//! | [`hub`] | who is connected, and the way of an event to them |
//! | [`latency`] | how old events are when they are delivered, by sample |
//! | [`pending`] | the reads of state, each with its cursor |
//! | [`migrate`], [`embedded`] | the schema; the private PostgreSQL of `run` and of the tests |
//! | [`demo`] | the demo users of `run`, with real rows |
//! | [`metrics`] | every series, declared once |
//! | [`auth`], [`limit`] | who a client is; how much it may |
//! | [`tls`] | the certificate, and its exchange |
//! | [`drain`] | the end of a server, spread over time |
//! | [`config`] | every setting, with its bounds |
//! | [`log`] | the statements that read `realtime.events` |
//! | [`wire`] | events, notices and close codes; the only place that parses and serializes JSON |
//! | [`frame`] | WebSocket's frames, from bytes and to bytes |
//! | [`cursor`], [`secret`] | a place in the stream of events; a text that is never shown |
//!
//! What holds everywhere, and where it is shown:
//! - imports point only downward in this table;
//! - no map guard is held across an await (`clippy.toml`), and no unsafe code is written
//!   (`Cargo.toml`);
//! - every task is tracked and joined, or dropped, by [`app::run`];
//! - every queue, buffer and map has a named bound;
//! - labels of metrics come from closed enums, never from a user or an address.

pub mod app;
pub mod auth;
pub mod barrier;
pub mod ceiling;
pub mod clock;
pub mod config;
pub mod connection;
pub mod cursor;
pub mod demo;
pub mod doorbell;
pub mod drain;
pub mod embedded;
pub mod frame;
pub mod http;
pub mod hub;
pub mod injector;
pub mod latency;
pub mod limit;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod migrate;
pub mod pace;
pub mod pending;
pub mod recent;
pub mod router;
pub mod secret;
pub mod socket;
pub mod tls;
pub mod transport;
pub mod wire;
