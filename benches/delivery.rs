//! How long events take from their commit to their clients, through the real server and a real
//! PostgreSQL that flushes every commit.
//!
//! | part | what is measured |
//! |---|---|
//! | `latency` | commit to client at a fixed rate of events, for each way of ingest |
//! | `storm` | all clients lose their connections at once and come back at once with their cursors |
//! | `cold` | a client comes back with a cursor of days ago, which only the log can serve |
//! | `burst` | one transaction of very many events: events per second, memory, what follows behind it |
//!
//! ```text
//! cargo bench --bench delivery                                       # all of it
//! cargo bench --bench delivery -- latency --ingest tail --rate 2000
//! cargo bench --bench delivery -- storm --clients 5000
//! cargo bench --bench delivery -- burst --events 1000000 --ingest tail
//! cargo bench --bench delivery -- --test                             # tiny: does it run, is anything lost?
//! ```
//!
//! The server has the first core for itself and PostgreSQL and the load have the others, where
//! `taskset` can do that. Figures go to standard output and to `target/bench/delivery.json`. Ends with
//! 1 when an event was lost: then no figure counts.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hushnet_realtime::config::Ingest;

use delivery_support::report::Report;
use delivery_support::stack::{Pinning, Stack};
use delivery_support::{burst, cold, latency, storm};

mod delivery_support;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    /// Parts to run (latency, storm, cold, burst); anything else is another benchmark's and runs none
    parts: Vec<String>,
    /// Run tiny numbers, to see that it runs and loses nothing
    #[arg(long)]
    test: bool,
    /// Given by `cargo bench`; without it (`cargo test --benches`) the run is a test
    #[arg(long, hide = true)]
    bench: bool,
    /// Length of each measurement of latency
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
    /// Clients of the storm
    #[arg(long, value_name = "CLIENTS", default_value_t = 10_000)]
    clients: usize,
    /// One way of ingest, instead of all
    #[arg(long, value_name = "WAY")]
    ingest: Option<Ingest>,
    /// One rate of latency in events per second, instead of 500, 2,000 and 10,000
    #[arg(long, value_name = "EVENTS")]
    rate: Option<u32>,
    /// Rows in one transaction of latency, instead of 1, or 10 above 2,000 events per second
    #[arg(long, value_name = "ROWS")]
    rows: Option<usize>,
    /// Rows in the log that a cold cursor is resumed from
    #[arg(long, value_name = "ROWS", default_value_t = 2_000_000)]
    log_rows: u32,
    /// Events in the one transaction of the burst
    #[arg(long, value_name = "EVENTS", default_value_t = 8_000_000)]
    events: usize,
    /// A setting of PostgreSQL, as in jit=off; may be given again
    #[arg(long, value_name = "NAME=VALUE")]
    postgres: Vec<String>,
    /// Leave the placement of processes to the kernel
    #[arg(long)]
    unpinned: bool,
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    fn ways(&self) -> Vec<Ingest> {
        match self.ingest {
            Some(way) => vec![way],
            None => vec![Ingest::Notify, Ingest::Tail, Ingest::Adaptive, Ingest::Wal],
        }
    }

    fn latency(&self, test: bool) -> latency::Plan {
        let rates = match self.rate {
            Some(rate) => vec![rate],
            None if test => vec![200, 4_000],
            None => vec![500, 2_000, 10_000],
        };
        latency::Plan {
            ways: self.ways(),
            loads: rates
                .into_iter()
                .map(|rate| latency::Load {
                    events_per_second: rate,
                    rows: self
                        .rows
                        .unwrap_or(if rate > 2_000 { 10 } else { 1 })
                        .max(1),
                })
                .collect(),
            users: if test { 20 } else { 200 },
            duration: if test {
                Duration::from_millis(500)
            } else {
                Duration::from_secs(self.seconds.into())
            },
        }
    }

    fn storm(&self, test: bool) -> storm::Plan {
        storm::Plan {
            ways: self.ways(),
            clients: if test { 200 } else { self.clients },
            events_per_second: 200,
        }
    }

    fn cold(&self, test: bool) -> cold::Plan {
        cold::Plan {
            way: self.ingest.unwrap_or(Ingest::Notify),
            log_rows: if test { 20_000 } else { self.log_rows },
            users: if test { 200 } else { 20_000 },
            samples: if test { 10 } else { 200 },
        }
    }

    fn burst(&self, test: bool) -> burst::Plan {
        burst::Plan {
            ways: self.ways(),
            events: if test { 50_000 } else { self.events },
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !["latency", "storm", "cold", "burst"]
        .iter()
        .any(|part| arguments.wants(part))
    {
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            eprintln!("{lost} events were lost");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("delivery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is asked for and says how many events were lost.
fn run(arguments: &Arguments) -> anyhow::Result<u64> {
    let test = arguments.test || !arguments.bench;
    // Before the runtime and PostgreSQL start: both inherit the cores.
    let pinning = if arguments.unpinned {
        Pinning::none("asked for")
    } else {
        Pinning::apply()
    };
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let stack = Stack::start(pinning, descriptors, &arguments.postgres).await?;
        let mut report = Report::begin(&stack, test).await?;
        let mut lost = 0;
        if arguments.wants("latency") {
            lost += latency::run(&stack, &mut report, &arguments.latency(test)).await?;
        }
        if arguments.wants("storm") {
            lost += storm::run(&stack, &mut report, arguments.storm(test)).await?;
        }
        if arguments.wants("cold") {
            lost += cold::run(&stack, &mut report, &arguments.cold(test)).await?;
        }
        if arguments.wants("burst") {
            lost += burst::run(&stack, &mut report, &arguments.burst(test)).await?;
        }
        stack.stop().await?;
        Ok(lost)
    })
}
