//! `migrate`: the service's schema in the application's database.

use clap::{Args, Subcommand};
use hushnet_realtime::config::{DatabaseUrl, Ingest};
use hushnet_realtime::output;
use hushnet_realtime::store::{Log, Purpose, migrate};

use super::database::{ApplicationDatabase, Waiting};
use super::exit;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    database: ApplicationDatabase,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Apply what is missing, and put the trigger of every source in its place; replaces HushNet's own notifying triggers
    Up {
        /// How events reach the server; without it the database's own value stands
        #[arg(long, env = "HUSHNET_INGEST", value_name = "WAY")]
        ingest: Option<Ingest>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Print what `up` would do, and change nothing
    Plan {
        /// End with the exit status 3 where something is to be done
        #[arg(long)]
        exit_code: bool,
    },
    /// Give a role the rights that it needs in the schema. As the owner of the schema; may be repeated
    Grant {
        /// The role, as PostgreSQL has its name
        #[arg(long, value_name = "NAME")]
        role: String,
        /// What the role does
        #[arg(long = "for", value_name = "PURPOSE")]
        purpose: Purpose,
    },
    /// Undo everything and put HushNet's own triggers back; the log of events is lost
    Down {
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Print each migration and whether it is applied
    Status,
}

/// What `plan --exit-code` ends with where something is to be done.
const PENDING: i32 = 3;

pub(super) async fn run(Arguments { action, database }: Arguments) -> anyhow::Result<()> {
    let url = database.find()?;
    let is_up = matches!(action, Action::Up { .. });
    match action {
        Action::Up { ingest, waiting } => {
            for table in migrate::up_with(&url, &waiting.patience()).await? {
                output::print_line(format_args!("put the trigger on {table} in its place"))?;
            }
            // The servers choose.
            if let Some(ingest) = ingest.filter(|ingest| *ingest != Ingest::Auto) {
                Log::new(url.options(), 1).set_ingest(ingest).await?;
            }
        }
        Action::Grant { role, purpose } => {
            for right in migrate::grant(&url, &role, purpose).await? {
                output::print_line(format_args!("granted {right} to {role}"))?;
            }
            return Ok(());
        }
        Action::Plan { exit_code } => return plan(&url, exit_code).await,
        Action::Down { waiting } => migrate::down_with(&url, &waiting.patience()).await?,
        Action::Status => {}
    }
    for status in migrate::status(&url).await? {
        let applied = if status.applied { "applied" } else { "pending" };
        output::print_line(format_args!(
            "{:04} {applied} {}",
            status.version, status.description
        ))?;
    }
    if is_up {
        for source in migrate::sources(&url).await? {
            output::print_line(source)?;
        }
    }
    Ok(())
}

async fn plan(url: &DatabaseUrl, exit_code: bool) -> anyhow::Result<()> {
    let steps = migrate::plan(url).await?;
    for step in &steps {
        output::print_line(step)?;
    }
    if steps.is_empty() {
        output::print_line("nothing is to be done")?;
    } else if exit_code {
        exit::at_once(PENDING);
    }
    Ok(())
}
