//! `serve`: the service on a database that is there.

use anyhow::Context;
use clap::Args;
use hushnet_realtime::app::MemoryBudget;
use hushnet_realtime::config::Config;
use hushnet_realtime::{app, edge};

use super::{raise_descriptor_limit, start_logging, stop_signal, systemd};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the settings as a TOML file, secrets masked, with the most memory that they admit, and stop
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn run(
    Arguments {
        print_config,
        mut config,
    }: Arguments,
) -> anyhow::Result<()> {
    if print_config {
        print!("{}\n{}", config.to_toml(), MemoryBudget::of(&config));
        return Ok(());
    }
    config.database()?;
    let handed_over = systemd::socket()?;
    if let Some(socket) = &handed_over {
        config.listen = socket.local_addr()?;
    }
    app::check(&config)?;
    start_logging(&config)?;
    raise_descriptor_limit(&config);
    let stop = stop_signal()?;
    let listener = match handed_over {
        Some(socket) => edge::adopt(socket),
        None => edge::bind(config.listen),
    };
    let listener = listener
        .with_context(|| format!("cannot listen on {}; --listen takes another", config.listen))?;
    let scheme = config.edge.scheme();
    println!("serving on {scheme}://{}", listener.local_addr()?);
    systemd::ready();
    let stop = async {
        stop.await;
        systemd::stopping();
    };
    Ok(app::run(config, listener, stop).await?)
}
