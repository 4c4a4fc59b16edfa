//! `history`: the run of transaction numbers and event ids that cursors belong to.

use anyhow::Context;
use clap::{Args, Subcommand};
use hushnet_realtime::output;
use hushnet_realtime::store::Log;

use super::database::ApplicationDatabase;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    database: ApplicationDatabase,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make every cursor that was given out before worthless: each client fetches its state anew. For a database whose
    /// disk was put back to an earlier state, which nothing else can tell
    Renew,
}

pub(super) async fn run(
    Arguments {
        action: Action::Renew,
        database,
    }: Arguments,
) -> anyhow::Result<()> {
    let url = database.find()?;
    let renewed = Log::new(url.options(), 1).renew_history(None).await;
    let history = renewed
        .context("cannot begin a new history")?
        .context("the log has no history: run `hushnet-realtime migrate up`")?;
    output::print_line(format_args!("history {history} has begun"))?;
    Ok(())
}
