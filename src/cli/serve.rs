//! `serve`: the service on a database that is there.

use anyhow::Context;
use clap::Args;
use hushnet_realtime::config::Config;
use hushnet_realtime::{app, http};

use super::{raise_descriptor_limit, start_logging, stop_signal};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the settings as a TOML file, secrets masked, and stop
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn run(
    Arguments {
        print_config,
        config,
    }: Arguments,
) -> anyhow::Result<()> {
    if print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    config.database()?;
    config.check_exposure()?;
    start_logging(&config)?;
    raise_descriptor_limit(&config);
    let stop = stop_signal()?;
    let listener = http::bind(config.listen)
        .with_context(|| format!("cannot listen on {}; --listen takes another", config.listen))?;
    println!("serving on http://{}", listener.local_addr()?);
    Ok(app::run(config, listener, stop).await?)
}
