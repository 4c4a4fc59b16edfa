//! `detach`: a kind of one's own makes no events any more.

use clap::Args;
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::output;
use hushnet_realtime::store::attach;

use super::database::{self, Waiting};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The type of the events
    kind: String,
    #[command(flatten)]
    waiting: Waiting,
    /// The application's database, as postgres://user:password@host:port/name
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<DatabaseUrl>,
}

pub(super) async fn run(
    Arguments {
        kind,
        waiting,
        database_url,
    }: Arguments,
) -> anyhow::Result<()> {
    let url = database::find(database_url)?;
    let relation = attach::detach(&url, &kind, &waiting.patience()).await?;
    output::print_line(format_args!("{kind}: no more events of {relation}"))?;
    Ok(())
}
