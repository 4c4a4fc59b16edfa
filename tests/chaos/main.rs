//! The checker: writers with every shape of transaction, clients that come and go, and a fault. At the end
//! each client must have every committed event of its user, once and in causal order, and no other event.
//! `README.md` beside this file says how to run it.
//!
//! Each scenario has a PostgreSQL of its own that it may kill, behind a link that it may cut.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod faults;
mod lab;
mod ledger;
mod library;
mod nodes;
mod pages;
mod proxy;
mod scene;
mod service;
mod settings;
mod shops;
mod storms;
mod verdict;
mod writers;
