//! The checker: writers with every shape of transaction, clients that come and go, a fault, and at the
//! end the question whether every committed event is with every client that should have it, once and in
//! causal order, and nothing else. `README.md` beside this file says how to run it.
//!
//! Each scenario has a PostgreSQL of its own that it may kill, behind a link that it may cut.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod faults;
mod lab;
mod ledger;
mod library;
mod pages;
mod proxy;
mod scene;
mod service;
mod settings;
mod storms;
mod verdict;
mod writers;
