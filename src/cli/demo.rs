//! `demo`: acts as the application would, with real rows.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::embedded::Cluster;
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::Misuse;
use super::run::DATABASE;

/// The demo user who writes.
pub(super) const SENDER: &str = "alice";
/// The demo user who is written to.
pub(super) const RECIPIENT: &str = "bob";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The database; without it, that of the `run` in the directory
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    database_url: Option<DatabaseUrl>,
    /// Where `run` keeps its private PostgreSQL
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = ".hushnet",
        global = true
    )]
    directory: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Insert a message row for each of a user's devices
    Send {
        /// The sender's username
        #[arg(long, default_value = SENDER)]
        from: String,
        /// The recipient's username
        #[arg(long, default_value = RECIPIENT)]
        to: String,
        /// Stored where a real client puts the ciphertext
        #[arg(default_value = "hello")]
        text: String,
    },
}

pub(super) async fn run(
    Arguments {
        action,
        database_url,
        directory,
    }: Arguments,
) -> anyhow::Result<()> {
    let url = match database_url {
        Some(url) => url,
        None => Cluster::locate(&directory, DATABASE)
            .ok_or_else(|| {
                Misuse(format!(
                    "no service runs on {}: start one with `run`, or set DATABASE_URL",
                    directory.display()
                ))
            })?
            .parse()
            .map_err(anyhow::Error::msg)?,
    };
    let mut connection = url
        .options()
        .connect()
        .await
        .with_context(|| format!("cannot connect to {}", url.masked()))?;
    let Action::Send { from, to, text } = action;
    let messages: Vec<Uuid> = sqlx::query_scalar(include_str!("../../sql/demo/send.sql"))
        .bind(&from)
        .bind(&to)
        .bind(&text)
        .fetch_all(&mut connection)
        .await?;
    connection.close().await?;
    if messages.is_empty() {
        return Err(Misuse(format!("no user {from}, or no user {to} with a device")).into());
    }
    for message in messages {
        println!("message {message} from {from} to {to}");
    }
    Ok(())
}

/// Adds [`SENDER`] and [`RECIPIENT`] with a device each and a chat, if they are not there.
pub(super) async fn add_users(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("../../sql/demo/users.sql"))
        .execute(connection)
        .await
        .map(drop)
}

/// The id of the user of that name.
pub(super) async fn user_id(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(include_str!("../../sql/demo/user_id.sql"))
        .bind(name)
        .fetch_optional(connection)
        .await
}
