//! The arguments: which subcommand they name, and which configuration file they read.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use hushnet_realtime::config::{self, ConfigError};
use hushnet_realtime::output::OutputError;

use super::{
    attach, demo, detach, history, migrate, nodes, run, serve, sources, tail, token, types,
};

/// Carries every committed PostgreSQL change that concerns a user to every device of that user.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the service with everything it needs: a private PostgreSQL, its schema, two demo users
    #[command(args_override_self = true)]
    Run(run::Arguments),
    /// Start the service on an existing database
    #[command(args_override_self = true)]
    Serve(serve::Arguments),
    /// Put the service's schema into the application's database, or take it out again
    Migrate(migrate::Arguments),
    /// Make changes of a table events, of the users whom a column or a query names
    Attach(attach::Arguments),
    /// End the events of a kind; those in the log stay there
    Detach(detach::Arguments),
    /// List which tables' changes are events, and whose
    Sources(sources::Arguments),
    /// Write the shapes of the events as types, for the application's clients
    Types(types::Arguments),
    /// Begin a new history of the log, after the database was put back to an earlier state
    History(history::Arguments),
    /// List the servers that share a bus and which of them leads, or have another lead
    Nodes(nodes::Arguments),
    /// Print a user's events as they come, one JSON object a line
    Tail(tail::Arguments),
    /// Make and check tokens by the server's settings, for development
    #[command(args_override_self = true)]
    Token(token::Arguments),
    /// Act as the application, with the demo users of `run`
    Demo(demo::Arguments),
}

/// How the flag begins that names a database.
const DATABASE_FLAG: &str = "--database-url=";

/// Runs the subcommand that the arguments name.
pub(crate) fn main(arguments: Vec<OsString>) -> anyhow::Result<()> {
    if arguments.len() < 2 {
        return Ok(Cli::command().print_help().map_err(OutputError::from)?);
    }
    let arguments = with_file(arguments)?;
    let matches = command(&arguments).get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::run(arguments).await,
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Migrate(arguments) => migrate::run(arguments).await,
            Command::Attach(arguments) => attach::run(arguments).await,
            Command::Detach(arguments) => detach::run(arguments).await,
            Command::Sources(arguments) => sources::run(arguments).await,
            Command::Types(arguments) => types::run(arguments).await,
            Command::History(arguments) => history::run(arguments).await,
            Command::Nodes(arguments) => nodes::run(arguments).await,
            Command::Tail(arguments) => tail::run(arguments).await,
            Command::Token(arguments) => token::run(arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
        }
    })
}

/// The command line. `run` brings a database with it, and puts nothing into another unless a flag names it:
/// `DATABASE_URL` often names the application's own. So does a command whose `--directory` names the database of `run`.
fn command(arguments: &[OsString]) -> clap::Command {
    let names_directory = arguments.iter().any(|argument| {
        let argument = argument.to_string_lossy();
        argument == "--directory" || argument.starts_with("--directory=")
    });
    let of_sources = ["attach", "detach", "sources", "types"];
    let of_sources = of_sources.iter().filter(|_| names_directory);
    of_sources
        .chain(&["run"])
        .fold(Cli::command(), |command, name| {
            command.mut_subcommand(name, |subcommand| {
                subcommand.mut_arg("database_url", |argument| argument.env(Resettable::Reset))
            })
        })
}

/// The arguments with the settings of the configuration file before them: of two equal flags the later one
/// counts.
fn with_file(arguments: Vec<OsString>) -> Result<Vec<OsString>, ConfigError> {
    if !matches!(arguments[1].to_str(), Some("run" | "serve" | "token")) {
        return Ok(arguments);
    }
    let variables = std::env::vars_os().filter(|(name, _)| name != tail::TOKEN_VARIABLE);
    config::check_variables(variables)?;
    let Some(path) = configuration_file(&arguments) else {
        return Ok(arguments);
    };
    let mut all = arguments;
    let rest = all.split_off(2);
    let mut flags = config::flags_of_file(&path)?;
    if all[1] == "run" {
        flags.retain(|flag| !flag.to_string_lossy().starts_with(DATABASE_FLAG));
    }
    all.extend(flags);
    all.extend(rest);
    Ok(all)
}

/// The file named by the last `--config`, or by `HUSHNET_CONFIG`.
fn configuration_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut found = std::env::var_os("HUSHNET_CONFIG");
    for (index, argument) in arguments.iter().enumerate() {
        match argument.to_str() {
            Some("--config") => found = arguments.get(index + 1).cloned().or(found),
            Some(text) => {
                if let Some(path) = text.strip_prefix("--config=") {
                    found = Some(path.into());
                }
            }
            None => {}
        }
    }
    found.map(PathBuf::from)
}
