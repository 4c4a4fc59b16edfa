//! One file for each subcommand; here what they have in common.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use hushnet_realtime::app::RunError;
use hushnet_realtime::config::{self, Config, ConfigError, LogFormat};
use hushnet_realtime::identity::SigningError;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

mod demo;
mod migrate;
mod run;
mod serve;
mod systemd;
mod tail;
mod token;

/// Carries every committed PostgreSQL change that concerns a user to every device of that user.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the service with everything it needs: a private PostgreSQL, its schema, two demo users
    #[command(args_override_self = true)]
    Run(run::Arguments),
    /// Start the service on a database that is there
    #[command(args_override_self = true)]
    Serve(serve::Arguments),
    /// Put the service's schema into the application's database, or take it out again
    Migrate(migrate::Arguments),
    /// Print a user's events as they come, one JSON object a line
    Tail(tail::Arguments),
    /// Make and check tokens by the server's settings, for development
    #[command(args_override_self = true)]
    Token(token::Arguments),
    /// Act as the application, on the demo users of `run`
    Demo(demo::Arguments),
}

/// A mistake in how the program was called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// Runs the subcommand that the arguments name.
pub(crate) fn main(arguments: Vec<OsString>) -> anyhow::Result<()> {
    if arguments.len() < 2 {
        return Ok(Cli::command().print_help()?);
    }
    let cli = Cli::parse_from(with_file(arguments)?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::run(arguments).await,
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Migrate(arguments) => migrate::run(arguments).await,
            Command::Tail(arguments) => tail::run(arguments).await,
            Command::Token(arguments) => token::run(arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
        }
    })
}

/// 2 for what the user can mend in the call or the configuration, else 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let misuse = error.is::<Misuse>()
        || error.is::<ConfigError>()
        || matches!(error.downcast_ref(), Some(RunError::Config(_)))
        || matches!(error.downcast_ref(), Some(SigningError::Config(_)));
    ExitCode::from(if misuse { 2 } else { 1 })
}

/// The arguments with those of the configuration file put before them: a flag given later wins.
fn with_file(arguments: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    if !matches!(arguments[1].to_str(), Some("run" | "serve" | "token")) {
        return Ok(arguments);
    }
    let names = std::env::vars_os().map(|(name, _)| name);
    config::check_variables(names.filter(|name| name != tail::TOKEN_VARIABLE))?;
    let Some(path) = configuration_file(&arguments) else {
        return Ok(arguments);
    };
    let mut all = arguments;
    let rest = all.split_off(2);
    all.extend(config::flags_of_file(&path)?);
    all.extend(rest);
    Ok(all)
}

/// The file named by the last `--config`, or by `HUSHNET_CONFIG`.
fn configuration_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut found = std::env::var_os("HUSHNET_CONFIG");
    for (position, argument) in arguments.iter().enumerate() {
        match argument.to_str() {
            Some("--config") => found = arguments.get(position + 1).cloned().or(found),
            Some(text) => {
                if let Some(path) = text.strip_prefix("--config=") {
                    found = Some(path.into());
                }
            }
            None => {}
        }
    }
    found.map(PathBuf::from)
}

/// Logs to standard error from here on.
fn start_logging(config: &Config) -> anyhow::Result<()> {
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

/// Ready at the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    // Heard from here on, so that it ends nothing: it means the certificate, if there is one.
    drop(signal(SignalKind::hangup())?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => 128 + 15,
                _ = interrupt.recv() => 128 + 2,
            }
        };
        next().await;
        tokio::spawn(async move {
            let code = tokio::select! {
                _ = terminate.recv() => 128 + 15,
                _ = interrupt.recv() => 128 + 2,
            };
            std::process::exit(code);
        });
    })
}

/// Opens as many files as the system lets us, since every connection is one.
fn raise_descriptor_limit(config: &Config) {
    let wanted = u64::from(config.limits.connections_max) + 1_024;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => {
            if limit < wanted {
                tracing::warn!(event = "descriptor_limit_low", limit, wanted);
            }
            widen_descriptor_table(limit.min(wanted));
        }
        Err(error) => tracing::warn!(event = "descriptor_limit_unknown", %error),
    }
}

/// The kernel doubles its table of our descriptors when it is full, and has whoever opens the next one wait for
/// 10 ms or more: at once is better than while thousands come (`make bench`: `storm_10000`). 8 bytes each.
fn widen_descriptor_table(descriptors: u64) {
    let last = i32::try_from(descriptors).unwrap_or(i32::MAX) - 1;
    // The table stays as wide as this one has made it.
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last) {
        tracing::warn!(event = "descriptor_table_not_widened", %error);
    }
}
