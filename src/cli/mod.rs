//! The command line: one file for each subcommand, and one for each thing that several of them need.

mod arguments;
mod attach;
mod database;
mod demo;
mod descriptors;
mod detach;
mod exit;
mod history;
mod line_differences;
mod logging;
mod migrate;
mod nodes;
mod run;
mod serve;
mod signals;
mod sources;
mod sources_file;
mod systemd;
mod tail;
mod token;
mod types;
mod typescript;
mod user;

pub(crate) use self::arguments::main;
pub(crate) use self::exit::conclude;
