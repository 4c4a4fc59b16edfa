//! `types`: the shapes of the events, as a module of types for the application's clients.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use hushnet_realtime::output;
use hushnet_realtime::store::event_shapes::event_shapes;

use super::database::SourcesDatabase;
use super::{line_differences, typescript};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write TypeScript: `Events`, with the shape of the events of each kind
    #[arg(long, required = true)]
    typescript: bool,
    /// Write into this file instead of to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the lines in which the file differs from what would be written, and change nothing; the exit code is 1 where it
    /// differs
    #[arg(long, requires = "out")]
    check: bool,
    #[command(flatten)]
    database: SourcesDatabase,
}

/// The file is not what would be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file} differs from the sources in force: write it again with `hushnet-realtime types --typescript --out {file}`"
)]
struct Differs {
    file: String,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let url = arguments.database.find()?;
    let module = typescript::module(&event_shapes(&url).await?);
    let Some(file) = arguments.out else {
        for line in module.lines() {
            output::print_line(line)?;
        }
        return Ok(());
    };
    if arguments.check {
        return check(&file, &module);
    }
    std::fs::write(&file, module).with_context(|| format!("cannot write {}", file.display()))
}

/// A file that is not there is empty. How its lines end is not compared: Git may have changed it.
fn check(file: &Path, module: &str) -> anyhow::Result<()> {
    let present = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let differences = line_differences::of(&present, module);
    if differences.is_empty() {
        return Ok(());
    }
    for line in differences {
        output::print_line(line)?;
    }
    let file = file.display().to_string();
    Err(Differs { file }.into())
}
