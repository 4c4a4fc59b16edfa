//! The command line: one file for each subcommand, and one for each thing that several of them need.

mod arguments;
mod database;
mod demo;
mod descriptors;
mod exit;
mod history;
mod logging;
mod migrate;
mod run;
mod serve;
mod signals;
mod systemd;
mod tail;
mod token;
mod user;

pub(crate) use self::arguments::main;
pub(crate) use self::exit::conclude;
