//! `migrate`: the service's schema in the application's database.

use clap::{Args, Subcommand};
use hushnet_realtime::config::{DatabaseUrl, Ingest};
use hushnet_realtime::output;
use hushnet_realtime::store::{Log, migrate};

use super::database;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
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

#[derive(Debug, Subcommand)]
enum Action {
    /// Apply what is missing, and put every trigger in its place; replaces HushNet's own notifying triggers
    Up {
        /// How events reach the server; without it the database's own value stands
        #[arg(long, env = "HUSHNET_INGEST", value_name = "WAY")]
        ingest: Option<Ingest>,
    },
    /// Undo everything and put HushNet's own triggers back; the log of events is lost
    Down,
    /// Print each migration and whether it is applied
    Status,
}

pub(super) async fn run(
    Arguments {
        action,
        database_url,
    }: Arguments,
) -> anyhow::Result<()> {
    let url = database::find(database_url)?;
    match action {
        Action::Up { ingest } => {
            for table in migrate::up(&url).await? {
                output::print_line(format_args!("put the trigger on {table} in its place"))?;
            }
            if let Some(ingest) = ingest {
                Log::new(url.options(), 1).set_ingest(ingest).await?;
            }
        }
        Action::Down => migrate::down(&url).await?,
        Action::Status => {}
    }
    for status in migrate::status(&url).await? {
        let applied = if status.applied { "applied" } else { "pending" };
        output::print_line(format_args!(
            "{:04} {applied} {}",
            status.version, status.description
        ))?;
    }
    Ok(())
}
