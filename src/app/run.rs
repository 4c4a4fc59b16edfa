//! The life of the service: commands and tests call [`run`] alike.

use super::assemble::assemble;
use super::database_connections::database_connections_max;
use super::descriptors::Descriptors;
use super::drain::drain;
use super::error::RunError;
use super::memory_budget::MemoryBudget;
use super::serve::serve;
use super::supervisor::{Supervisor, TaskEnded};
use crate::config::{Config, ConfigError};
use crate::edge::{Listener, Tls};
use crate::identity::Tokens;

/// Whether the settings allow a start. Nothing is begun while a setting is missing, contradicts another or names
/// a file that cannot be read.
///
/// # Errors
/// [`ConfigError`] that says what to change.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check_exposure()?;
    if config.identity.auth.takes_tokens() {
        Tokens::new(&config.identity)?;
    }
    Tls::new(&config.edge).map(drop)
}

/// Serves on `listener` until `shutdown` is ready or a task of the service ends. Then closes every connection and
/// returns when all tasks have ended. The database may come later than the service.
///
/// # Errors
/// [`RunError`] when the settings do not allow a start, a task has ended, or the drain takes too long.
pub async fn run(
    config: Config,
    listener: Listener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    check(&config)?;
    let bytes = MemoryBudget::of(&config).bytes();
    tracing::info!(event = "memory_ceiling", bytes);
    let connections = database_connections_max(&config);
    tracing::info!(event = "database_connections_max", connections);
    let descriptors = Descriptors::of_process(&config)?;
    let mut supervisor = Supervisor::default();
    let (api, lead) = assemble(&config, descriptors, &mut supervisor)?;
    let stop_accepting = serve(&config, descriptors, &api, listener, &mut supervisor)?;

    let ended = tokio::select! {
        () = shutdown => None,
        ended = supervisor.next_end() => Some(ended),
    };
    if let Some(TaskEnded { task, cause }) = &ended {
        tracing::error!(event = "task_ended", %task, %cause);
    }

    if let Some(lead) = &lead {
        lead.give_up().await;
    }
    let left = drain(&config, &api, stop_accepting, &mut supervisor).await;
    supervisor.abort_all().await;
    // A query whose connection has gone silent would not end.
    let closing = api.shared.log.close();
    let _ = tokio::time::timeout(config.drain_deadline(), closing).await;
    match ended {
        Some(ended) => Err(ended.into()),
        None if left > 0 => Err(RunError::DrainDeadline {
            tasks: left,
            deadline_ms: config.drain_deadline_ms,
        }),
        None => Ok(()),
    }
}
