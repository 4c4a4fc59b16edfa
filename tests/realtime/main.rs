//! The service as a client, an operator and the application use it: `app::run` or the binary, on a real
//! PostgreSQL that these tests start (one cluster, a database for each test).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod attach;
mod balancers;
mod burst;
mod cli;
mod clients;
mod connections;
mod console;
mod dashboard;
mod database_address;
mod database_connections;
mod database_tls;
mod descriptors;
mod drain;
mod durability;
mod edge;
mod events;
mod forged;
mod history;
mod hostile;
mod http;
mod identity;
mod ingest;
mod kinds;
mod large_events;
mod latency;
mod layouts;
mod lean_log;
mod limits;
mod listener;
mod log_switch;
mod long_replay;
mod migrations;
mod nodes;
mod output;
mod pending;
mod pooler;
mod readiness;
mod recovery;
mod resume;
mod retention;
mod roles;
mod run;
mod schema;
mod shutdown;
mod sources;
mod statements;
mod support;
mod systemd;
mod timeouts;
mod triggers;
mod truncate;
mod types;
mod upgrade;
mod users;
mod wal;
