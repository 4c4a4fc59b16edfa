//! `serve`: the service on an existing database.

use anyhow::Context;
use clap::Args;
use hushnet_realtime::app::{self, MemoryBudget};
use hushnet_realtime::config::{Config, ConfigError, DatabaseUrl};
use hushnet_realtime::edge;
use hushnet_realtime::output;

use super::{database, descriptors, logging, signals, systemd};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the settings as a TOML file, secrets masked, with the most memory that they allow, and stop
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
    config.database_url = match DatabaseUrl::or_of_variables(config.database_url) {
        Err(ConfigError::NoDatabase) if print_config => None,
        named => Some(named?),
    };
    if print_config {
        let printed = format!(
            "{}\n# database_connections_max = {}\n{}",
            config.to_toml(),
            app::database_connections_max(&config),
            MemoryBudget::of(&config)
        );
        return Ok(output::print_line(printed.trim_end())?);
    }
    let handed_over = systemd::socket()?;
    if let Some(socket) = &handed_over {
        config.listen = socket.local_addr()?;
    }
    app::check(&config)?;
    logging::start(&config)?;
    database::log(config.database()?);
    descriptors::raise_limit(&config)?;
    signals::stopping_on_signal(async move |stop| {
        let listener = match handed_over {
            Some(socket) => edge::adopt(socket),
            None => edge::bind(config.listen),
        };
        let listener = listener.with_context(|| {
            format!("cannot listen on {}; --listen takes another", config.listen)
        })?;
        let scheme = config.edge.scheme();
        let address = listener.local_addr()?;
        output::announce(format_args!("serving on {scheme}://{address}"))?;
        systemd::ready();
        let stop = async {
            // The sender is dropped only when the process exits.
            let _ = stop.await;
            systemd::stopping();
        };
        tokio::select! {
            served = app::run(config, listener, stop) => Ok(served?),
            never = systemd::keep_alive() => match never {},
        }
    })
    .await
}
