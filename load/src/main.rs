//! Load for a server that takes `ws://…?user_id=<uuid>`, and what that load costs it.
//!
//! | file | what it owns |
//! |---|---|
//! | `cli.rs` | the arguments |
//! | `target.rs` | where the server is, and that it is on this machine |
//! | `clients.rs` | every connection, in one loop on one thread |
//! | `ports.rs` | the addresses and ports that they come from |
//! | `handshake.rs`, `frame.rs` | a client's half of the WebSocket protocol |
//! | `events.rs` | which event is for whom, and which have arrived |
//! | `source.rs`, `inject.rs`, `commits.rs` | how events get to the server |
//! | `drive.rs` | when events are sent |
//! | `bench.rs` | what all commands do: open, wait, close, read the server's figures |
//! | `process.rs` | what Linux says of the server |
//! | `report.rs` | the figures, as text or as JSON |
//! | `idle.rs`, `churn.rs`, `fanout.rs`, `storm.rs`, `resume.rs`, `absent.rs`, `listen.rs` | a command each |
//!
//! Exit code 0: measured, and nothing was lost. 1: something was lost, or the measurement failed.
//! 2: the call is wrong, and how.

mod absent;
mod bench;
mod churn;
mod cli;
mod clients;
mod commits;
mod drive;
mod events;
mod fanout;
mod frame;
mod handshake;
mod idle;
mod inject;
mod listen;
mod ports;
mod process;
mod report;
mod resume;
mod source;
mod storm;
mod target;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Usage};
use report::Report;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) => {
            report.print(cli.common.json);
            ExitCode::from(u8::from(report.failed()))
        }
        Err(error) => {
            eprintln!("hushnet-load: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Report> {
    let common = &cli.common;
    match &cli.command {
        Command::Idle(plan) => idle::run(common, plan),
        Command::Churn(plan) => churn::run(common, plan),
        Command::Fanout(plan) => fanout::run(common, plan),
        Command::Latency(plan) => fanout::run_latency(common, plan),
        Command::Storm(plan) if plan.cursors => resume::run(common, plan),
        Command::Storm(plan) => storm::run(common, plan),
        Command::Absent(plan) => absent::run(common, plan),
        Command::Listen(plan) => listen::run(common, plan),
    }
}
