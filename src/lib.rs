//! hushnet-realtime carries every committed PostgreSQL row change that concerns a user to every
//! device of that user, over WebSocket.

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
pub mod protocol;
pub mod store;
