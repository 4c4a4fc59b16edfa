//! The private PostgreSQL of `hushnet-realtime run` and of the tests.
//!
//! A [`Cluster`] is one PostgreSQL server with its data in one directory. Starting it finds the
//! server's programs on this machine, creates the data directory if there is none, and serves it on
//! a Unix socket that only this user (and root) can reach. The data are kept from run to run.
//!
//! | in the directory | contents |
//! |---|---|
//! | `data` | the data directory, or a link to it where the server's user cannot reach this directory |
//! | `socket` | the directory of the socket, or a link to one with a shorter path |
//! | `postgres.log` | the server's log; the previous one, once it was too long, is `postgres.log.1` |
//! | `service.lock` | locked while a service uses the directory: a second service is refused |
//! | `supervisor.lock` | locked until the server is down, even if the service was killed |
//!
//! The server never outlives the service. A shell supervises the server and stops it when the
//! service's end of a pipe closes; the kernel closes that end however the service ends.
//!
//! Must never: listen on a network address, touch another cluster, delete data. A failed start is
//! reported with the last lines of the server's log.
//!
//! The files, each of which uses only those above it:
//!
//! | file | subject |
//! |---|---|
//! | `binaries.rs` | where the server's programs are, and of which version |
//! | `error.rs` | [`ClusterError`] |
//! | `wait.rs` | waiting for a condition |
//! | `address.rs` | the address of a database, for sqlx and libpq |
//! | `account.rs` | the operating system's user that the server runs as |
//! | `files.rs` | private files and directories, and links |
//! | `server_log.rs` | the server's log: its size, its last lines |
//! | `layout.rs` | the paths of one cluster |
//! | `socket.rs` | the directory of the socket |
//! | `initdb.rs` | creating the data directory |
//! | `postmaster.rs` | `postmaster.pid`: which server runs on a data directory |
//! | `supervisor.rs` | the shell that stops the server when the service ends |
//! | `lock.rs` | the two locks |
//! | `startup.rs` | starting a server, or taking over a running one |
//! | `cluster.rs` | [`Cluster`] |

#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub use self::cluster::Cluster;
pub use self::error::ClusterError;

mod account;
mod address;
mod binaries;
mod cluster;
mod error;
mod files;
mod initdb;
mod layout;
mod lock;
mod postmaster;
mod server_log;
mod socket;
mod startup;
mod supervisor;
mod wait;
