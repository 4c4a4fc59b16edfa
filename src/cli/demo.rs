//! `demo`: writes the rows that the application would write.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::output;
use hushnet_realtime::store::demo::{self, RECIPIENT, SENDER};
use sqlx::{ConnectOptions, Connection};

use super::database;
use super::exit::Misuse;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The database; by default the one of the `run` in the directory
    #[arg(long, value_name = "URL", global = true)]
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
        None => database::private(&directory)?,
    };
    let mut connection = url
        .options()
        .connect()
        .await
        .with_context(|| format!("cannot connect to {}", url.masked()))?;
    let Action::Send { from, to, text } = action;
    let messages = demo::send(&mut connection, &from, &to, &text).await?;
    connection.close().await?;
    if messages.is_empty() {
        return Err(Misuse(format!("no user {from}, or no user {to} with a device")).into());
    }
    for message in messages {
        output::print_line(format_args!("message {message} from {from} to {to}"))?;
    }
    Ok(())
}
