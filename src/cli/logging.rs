//! The service's log, on standard error.

use hushnet_realtime::config::{Config, LogFormat};
use hushnet_realtime::output::{LogWriter, log_panics};
use tracing_subscriber::EnvFilter;

use super::exit::Misuse;

/// Logs to standard error from here on, panics too.
pub(super) fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        Misuse(format!(
            "--log {}: {error}; it takes levels as in info,sqlx=warn",
            config.log
        ))
    })?;
    let writer = LogWriter::start()?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(writer.is_terminal())
        .with_writer(move || writer)
        // It would be written past the writer, and panic where standard error is closed.
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    log_panics();
    Ok(())
}
