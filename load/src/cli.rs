//! The arguments, with their defaults and bounds.

use std::fmt;
use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

/// A mistake of whoever called: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Opens many WebSockets to a server on this machine, sends events through it, and says what came,
/// how fast, and what it cost the server.
#[derive(Debug, Parser)]
#[command(name = "hushnet-load", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where the server takes WebSockets; the user is added to the query, as `user_id=<uuid>`
    #[arg(long, global = true, default_value = "ws://127.0.0.1:8080/ws")]
    pub(crate) url: String,
    /// The server's process, for CPU time and memory; without it these figures are left out
    #[arg(long, global = true)]
    pub(crate) pid: Option<u32>,
    /// The server's injector: events are written to it, one notification's JSON a line
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        conflicts_with = "database_url"
    )]
    pub(crate) inject: Option<SocketAddr>,
    /// The server's database: events are real commits. Users, chats and messages stay in it
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Connections that commit to the database
    #[arg(long, global = true, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) writers: u16,
    /// Rows of one transaction
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rows: u32,
    /// The same seed makes the same users and choices
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Loopback addresses that connections come from, 127.0.0.2 on, so that ports do not run out
    #[arg(long, global = true, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) sources: u8,
    /// Handshakes in flight at a time [default: 256; storm: all]
    #[arg(long, global = true, value_parser = at_least_one)]
    pub(crate) opening: Option<usize>,
    /// One JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What an open connection costs that is sent nothing
    Idle(Idle),
    /// Whether memory grows with users who have left
    Churn(Churn),
    /// Events to connected users, as fast as they are taken or at a rate
    Fanout(Fanout),
    /// The same at a fixed rate, for a time
    Latency(Latency),
    /// All clients connect at once
    Storm(Storm),
    /// Events for users who are not connected
    Absent(Absent),
    /// Connections that take what others send
    Listen(Listen),
}

#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Connections, of a user each
    #[arg(long, default_value = "10000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Between two readings of the memory that are to agree
    #[arg(long, default_value_t = 1_500)]
    pub(crate) settle_ms: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Churn {
    /// New users in each round
    #[arg(long, default_value = "5000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// The first two warm the server up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) rounds: u32,
    /// Between two readings of the memory that are to agree
    #[arg(long, default_value_t = 1_500)]
    pub(crate) settle_ms: u64,
}

/// Who gets events, and how they are sent.
#[derive(Debug, Args)]
pub(crate) struct Aim {
    /// Connections of each user
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) devices: u32,
    /// Another server that gets the same events: the second of each user's two devices connects there, and the report has
    /// how much later it gets an event
    #[arg(long, value_name = "URL", requires = "devices")]
    pub(crate) beside: Option<String>,
    /// Only the first so many users get events [default: all]
    #[arg(long)]
    pub(crate) busy: Option<usize>,
    /// The k-th user gets events in proportion to 1/k^S instead of as many as any other
    #[arg(long, value_name = "S")]
    pub(crate) zipf: Option<f64>,
    /// Events for one user that are sent together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) burst: u32,
    /// Events before the measurement [default: a tenth of those in it, 1,000 at least]
    #[arg(long, value_name = "EVENTS")]
    pub(crate) warm_up: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Fanout {
    #[arg(long, default_value = "1000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    #[command(flatten)]
    pub(crate) aim: Aim,
    /// Events a second, due at moments fixed in advance [default: as fast as they arrive]
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    #[arg(long, default_value_t = 200_000)]
    pub(crate) events: u64,
    /// Without a rate: events that may be under way at a time
    #[arg(long, default_value_t = 256, conflicts_with = "rate")]
    pub(crate) window: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Latency {
    #[arg(long, default_value = "10000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    #[command(flatten)]
    pub(crate) aim: Aim,
    /// Events a second, due at moments fixed in advance
    #[arg(long, default_value_t = 2_000.0)]
    pub(crate) rate: f64,
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Storm {
    #[arg(long, default_value = "10000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// All close and come again so many times; the figures are over all rounds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "cursors")]
    pub(crate) rounds: u32,
    /// Clients come back with a cursor and have missed an event each; needs --database-url
    #[arg(long)]
    pub(crate) cursors: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Absent {
    /// Connected users, of whom one gets the last event
    #[arg(long, default_value = "1000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Events for users who are not connected
    #[arg(long, default_value_t = 500_000)]
    pub(crate) events: u64,
    /// Events a second, sent every 20 ms [default: all at once]
    #[arg(long)]
    pub(crate) rate: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Connections, of a user each: number n has the id that is the digits of n, as 00000000-0000-0000-0000-000000000001
    #[arg(long, default_value = "1000", value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// The number of the first user
    #[arg(long, default_value = "1", value_parser = at_least_one)]
    pub(crate) first: usize,
    /// How long they stay, once all are open
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_connections_and_two_ways_in_are_refused() {
        for wrong in [
            "idle --connections 0",
            "storm --rounds 2 --cursors",
            "fanout --inject 127.0.0.1:1 --database-url postgres://localhost/x",
            "fanout --rate 5 --window 3",
            "churn --rounds 2",
        ] {
            let arguments = ["hushnet-load"].into_iter().chain(wrong.split(' '));
            assert!(Cli::try_parse_from(arguments).is_err(), "{wrong}");
        }
    }
}
