//! A program of a made-up next version: the tests' program, run for `serves` alone. It is the service, but reads and
//! writes messages of the next format too.

use clap::Parser;
use hushnet_realtime::config::Config;
use hushnet_realtime::nodes::VERSION;
use hushnet_realtime::{app, edge};
use hushnet_testkit::program;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Its settings, one a line.
const SETTINGS: &str = "NEXT_VERSION_SETTINGS";
pub const NEXT: u8 = VERSION + 1;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

/// The command that runs it with these settings, as the flags of `serve`.
pub fn command(settings: &[String]) -> Command {
    let mut command = program::command(std::env::current_exe().unwrap());
    command
        .args(["--exact", "nodes::next_version::serves"])
        .args(["--ignored", "--nocapture"])
        .env(SETTINGS, settings.join("\n"));
    command
}

#[tokio::test]
#[ignore = "run by the others"]
async fn serves() {
    let Ok(settings) = std::env::var(SETTINGS) else {
        return;
    };
    let flags = ["serve"].into_iter().chain(settings.lines());
    let Arguments { mut config } = Arguments::parse_from(flags);
    config.nodes.batch_version = Some(NEXT);
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let listener = edge::bind(config.listen).unwrap();
    let address = listener.local_addr().unwrap();
    // What the test harness has printed may be without its end of line.
    println!("\nserving on http://{address}");
    let stop = async { _ = terminated.recv().await };
    app::run(config, listener, stop).await.unwrap();
}
