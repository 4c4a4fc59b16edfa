//! The service's log, on standard error.

use std::io::IsTerminal;

use hushnet_realtime::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

use super::exit::Misuse;

/// Logs to standard error from here on.
pub(super) fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Misuse(format!(
            "--log {}: {error}; it takes levels as in info,sqlx=warn",
            config.log
        ))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
