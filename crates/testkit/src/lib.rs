//! What the tests and benchmarks start and wait for. Only they use this crate.
//!
//! It does not depend on the service's crate: the service is a program whose path the caller
//! passes, or an address that the caller knows. A test or benchmark that cannot go on has failed,
//! so most functions here panic instead of returning an error.
//!
//! The files, each of which uses only those above it:
//!
//! | file | subject |
//! |---|---|
//! | `wait.rs` | waiting for a condition or a future, with a deadline |
//! | `database.rs` | PostgreSQL clusters, connections, databases copied from a template |
//! | `roles.rs` | the tables' owner, the service, the application |
//! | `application.rs` | the application's schema, its users and their messages |
//! | `http.rs` | HTTP requests, and the values of metrics |
//! | `client.rs` | the reference WebSocket client |
//! | `program.rs` | starting a program, reading its output, signalling and ending it |
//! | `server.rs` | the service as a program: started, awaited, asked, stopped |
//! | `standby.rs` | an asynchronous standby of a private cluster |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on has failed"
)]

pub mod application;
pub mod client;
pub mod database;
pub mod http;
pub mod program;
pub mod roles;
pub mod server;
pub mod standby;
pub mod wait;
