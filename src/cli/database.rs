//! The database that a command uses: how it is said, how long its locks are waited for, and how libpq's variables are kept
//! from one.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hushnet_devdb::Cluster;
use hushnet_realtime::config::{DatabaseUrl, is_variable};
use hushnet_realtime::output;
use hushnet_realtime::store::Patience;

use super::exit::Misuse;

/// The database of `run` in its private cluster.
pub(super) const OF_RUN: &str = "hushnet";

/// The database of a command with actions, any of which it may stand behind.
#[derive(Debug, Args)]
pub(super) struct ApplicationDatabase {
    /// The application's database, as postgres://user:password@host:port/name
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    database_url: Option<DatabaseUrl>,
}

impl ApplicationDatabase {
    pub(super) fn find(self) -> anyhow::Result<DatabaseUrl> {
        find(self.database_url)
    }
}

/// The database of a command that reads or changes the application's sources.
#[derive(Debug, Args)]
pub(super) struct SourcesDatabase {
    /// The application's database, as postgres://user:password@host:port/name
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        conflicts_with = "directory"
    )]
    database_url: Option<DatabaseUrl>,
    /// Instead of it the database of the `run` that keeps its private PostgreSQL here
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl SourcesDatabase {
    pub(super) fn find(self) -> anyhow::Result<DatabaseUrl> {
        match self.directory {
            Some(directory) => private(&directory),
            None => find(self.database_url),
        }
    }
}

/// The database of the `run` that keeps its private PostgreSQL in the directory.
pub(super) fn private(directory: &Path) -> anyhow::Result<DatabaseUrl> {
    without_variables()?;
    Cluster::locate(directory, OF_RUN)
        .ok_or_else(|| {
            Misuse(format!(
                "no service runs on {}: start one with `run`, or give --database-url",
                directory.display()
            ))
        })?
        .parse()
        .map_err(anyhow::Error::msg)
}

/// Logs where the connections lead, what of libpq's variables is used, and what is not.
pub(super) fn log(url: &DatabaseUrl) {
    let (address, variables) = (url.effective(), url.variables().join(" "));
    let password_of = url.password_of().unwrap_or("none");
    tracing::info!(event = "database_address", %address, variables, password_of);
    for not_used in url.not_used() {
        let (what, why) = (&not_used.what, &not_used.why);
        tracing::warn!(event = "database_setting_not_used", what, why);
    }
}

/// The given database, or the one that libpq's variables name. Says on standard error what of them is used, for a
/// command that has no log.
pub(super) fn find(given: Option<DatabaseUrl>) -> anyhow::Result<DatabaseUrl> {
    let url = DatabaseUrl::or_of_variables(given)?;
    let of_file = url
        .password_of()
        .filter(|of| of.starts_with("password file"));
    let variables = url.variables().iter().copied();
    let used: Vec<&str> = variables.chain(of_file).collect();
    if !used.is_empty() {
        let (address, used) = (url.effective(), used.join(", "));
        output::complain(format_args!("database: {address}, with {used}"));
    }
    for not_used in url.not_used() {
        output::complain(format_args!("warning: {not_used}"));
    }
    Ok(url)
}

/// Starts the program again without libpq's variables, if there are any: the private database needs none, and the
/// library that connects reads them by itself. Returns where there is none.
pub(super) fn without_variables() -> anyhow::Result<()> {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let variables: Vec<String> = variables.filter(|name| is_variable(name)).collect();
    if variables.is_empty() {
        return Ok(());
    }
    output::complain(format_args!(
        "{} not used: the private database needs none; --database-url names another",
        variables.join(", ")
    ));
    output::write_last_words();
    let mut arguments = std::env::args_os();
    let mut again = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments);
    for variable in &variables {
        again.env_remove(variable);
    }
    Err(again.exec()).context("cannot start again without libpq's variables")
}

/// How long to try for locks.
#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// How long to try for locks that others hold
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    lock_wait: u32,
}

impl Waiting {
    pub(super) fn patience(&self) -> Patience {
        Patience {
            wait: Duration::from_secs(self.lock_wait.into()),
            report: |line| output::complain(format_args!("{line}")),
        }
    }
}
