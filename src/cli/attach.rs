//! `attach`: changes of tables of one's own are events, one table by flags or several by a file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hushnet_realtime::config::DatabaseUrl;
use hushnet_realtime::output;
use hushnet_realtime::store::Patience;
use hushnet_realtime::store::attach::{self, Attached, Attachment, Instead, Standing};

use super::database::{SourcesDatabase, Waiting};
use super::exit::Misuse;
use super::sources_file;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    attachment: Flags,
    /// Attach what this TOML file says instead, each `[[source]]` with the names of the flags
    #[arg(long, value_name = "FILE", conflicts_with = "Flags")]
    file: Option<PathBuf>,
    /// Say what of the file is not so in the database, and change nothing; the exit code is 1 where something is not
    #[arg(long, requires = "file")]
    check: bool,
    /// Check it, print the SQL and the plan of the query, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    database: SourcesDatabase,
}

#[derive(Debug, Args)]
struct Flags {
    /// The table, as SQL has its name; without a schema it is looked up in the role's search path
    #[arg(required_unless_present = "file")]
    table: Option<String>,
    /// A column of users' ids; may be repeated: each user whom one of them names
    #[arg(
        long = "user",
        value_name = "COLUMN",
        required_unless_present_any = ["users", "file"]
    )]
    user_columns: Vec<String>,
    /// A query of users' ids that may use NEW, as in "SELECT member FROM public.members WHERE team = NEW.team"
    #[arg(long, value_name = "QUERY")]
    users: Option<String>,
    /// The most users whom one row may concern, where a query names them [default: 10000]
    #[arg(long, value_name = "USERS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users_max: Option<u32>,
    /// The type of the events; without it the table's name
    #[arg(long, value_name = "NAME")]
    kind: Option<String>,
    /// Which changes are events [default: insert,update,delete]
    #[arg(long, value_name = "OPERATIONS", value_delimiter = ',')]
    on: Vec<Operation>,
    /// The columns that the event shows besides the key; without it none
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    fields: Vec<String>,
    /// An update shows only those of the fields that have changed, and is no event where none has
    #[arg(long, requires = "fields")]
    changed: bool,
    /// An expression over NEW; a row for which it is not true concerns nobody
    #[arg(long, value_name = "EXPRESSION")]
    when: Option<String>,
    /// The columns that the event shows as its key; without it those of the primary key
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    key: Vec<String>,
    /// Logical replication writes the table, which fires triggers of rows alone
    #[arg(long)]
    replica: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Operation {
    Insert,
    Update,
    Delete,
}

impl Flags {
    fn attachment(self) -> Attachment {
        let operations = self.on.iter().map(|operation| match operation {
            Operation::Insert => "insert".to_owned(),
            Operation::Update => "update".to_owned(),
            Operation::Delete => "delete".to_owned(),
        });
        Attachment {
            operations: operations.collect(),
            // Without one clap has refused the call.
            table: self.table.unwrap_or_default(),
            kind: self.kind,
            user_columns: self.user_columns,
            users: self.users,
            users_max: self.users_max,
            fields: self.fields,
            changed: self.changed,
            condition: self.when,
            keys: self.key,
            replica: self.replica,
        }
    }
}

/// The file's sources are not all in force.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the file's sources are not in force as the file has them")]
struct NotInForce(usize);

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let url = arguments.database.find()?;
    let patience = arguments.waiting.patience();
    let patience = (!arguments.dry_run && !arguments.check).then_some(&patience);
    let Some(file) = arguments.file else {
        let attachment = arguments.attachment.attachment();
        let instead = match attach::standing(&url, &attachment).await? {
            Standing::Missing => Instead::OfNone,
            Standing::Different | Standing::InForce => Instead::OfOther,
        };
        return attach_one(&url, &attachment, instead, patience, arguments.dry_run).await;
    };
    let attachments = sources_file::read(&file).map_err(|error| Misuse(format!("{error:#}")))?;
    let mut not_in_force = 0;
    for attachment in &attachments {
        let instead = match attach::standing(&url, attachment).await? {
            Standing::InForce if arguments.check => {
                // The table may have changed since.
                attach::preview(&url, attachment, Instead::OfOther).await?;
                continue;
            }
            Standing::InForce => continue,
            Standing::Missing => Instead::OfNone,
            Standing::Different => Instead::OfOther,
        };
        not_in_force += 1;
        attach_one(&url, attachment, instead, patience, arguments.dry_run).await?;
    }
    if arguments.check && not_in_force > 0 {
        return Err(NotInForce(not_in_force).into());
    }
    Ok(())
}

/// Prints what it does, if wanted with the triggers and their function. Without patience it does nothing.
async fn attach_one(
    url: &DatabaseUrl,
    attachment: &Attachment,
    instead: Instead,
    patience: Option<&Patience>,
    shows_definition: bool,
) -> anyhow::Result<()> {
    let attached = attach::preview(url, attachment, instead).await?;
    if instead == Instead::OfOther {
        output::print_line(format_args!("-- instead of what {} is now:", attached.kind))?;
    }
    print(&attached, shows_definition)?;
    if let Some(patience) = patience {
        attach::attach(url, attachment, instead, patience).await?;
        let Attached { kind, relation, .. } = attached;
        output::print_line(format_args!("-- {kind}: events of {relation}"))?;
    }
    Ok(())
}

fn print(attached: &Attached, whole: bool) -> anyhow::Result<()> {
    output::print_line(&attached.statement)?;
    if !attached.plan.is_empty() {
        output::print_line("-- the query's plan for one row, which each row of a statement pays:")?;
    }
    for line in &attached.plan {
        output::print_line(format_args!("--   {line}"))?;
    }
    for part in attached.definition.iter().filter(|_| whole) {
        output::print_line(part)?;
    }
    Ok(())
}
