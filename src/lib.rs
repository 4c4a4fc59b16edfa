//! hushnet-realtime carries every committed PostgreSQL row change that concerns a user to every
//! device of that user, over WebSocket.
//!
//! One folder for each idea, from the ground up. A folder uses only folders that stand above it here, and not all
//! of them; `tests/architecture` holds the table.
//!
//! | folder | what it owns |
//! |---|---|
//! | [`output`] | standard output and standard error: nobody waits for their readers |
//! | [`protocol`] | what goes over the wire: events, notices, client frames, close codes, cursors; pure |
//! | [`config`] | every setting, declared once |
//! | [`metrics`] | every metric, declared once |
//! | [`limits`] | how much one client, one address and one user may do |
//! | [`store`] | all SQL: connections to the database, the event log, devices, migrations |
//! | [`identity`] | tokens, keys and signatures |
//! | [`delivery`] | from the router to the connections: the hub, the replay buffer, the feed |
//! | [`nodes`] | what the nodes of one database send each other, and who of them reads the log |
//! | [`ingest`] | what turns commits into events: the listener, catching up, barriers |
//! | [`connection`] | one client's life: its position in the stream, its deadlines, its socket |
//! | [`edge`] | from the listening socket to HTTP: accepting, TLS, proxies |
//! | [`http`] | the routes, the upgrade to a WebSocket, the console |
//! | [`app`] | puts the service together, runs it, drains it |
//! | `cli` | the subcommands; part of the binary |
//!
//! What holds everywhere: `mod.rs` only declares and re-exports; each file is under 500 lines; SQL stands in [`store`]
//! and `sql/`; tasks are started by [`app`]'s supervisor; nothing panics on what comes from outside.

#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod app;
pub mod config;
pub mod connection;
pub mod delivery;
pub mod edge;
pub mod http;
pub mod identity;
pub mod ingest;
pub mod limits;
pub mod metrics;
pub mod nodes;
pub mod output;
pub mod protocol;
pub mod store;
