//! `detach`: a kind of one's own makes no events any more.

use clap::Args;
use hushnet_realtime::output;
use hushnet_realtime::store::attach;

use super::database::{SourcesDatabase, Waiting};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The type of the events
    kind: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    database: SourcesDatabase,
}

pub(super) async fn run(
    Arguments {
        kind,
        waiting,
        database,
    }: Arguments,
) -> anyhow::Result<()> {
    let url = database.find()?;
    let relation = attach::detach(&url, &kind, &waiting.patience()).await?;
    output::print_line(format_args!("{kind}: no more events of {relation}"))?;
    Ok(())
}
