//! The tables of settings and of a database address's parameters in `docs/operations.md`, made from the declarations.

use std::path::PathBuf;

use clap::{Arg, Command};

use super::database::{PARAMETERS, Parameter, Treatment};
use super::settings::{settings, without_environment};

/// Set to write the table into the page instead of comparing the two.
const UPDATE_VARIABLE: &str = "UPDATE_DOCS";
const HEADING: &str = "## Settings\n";
const PARAMETERS_HEADING: &str = "### The database's address\n";
const PARAMETERS_HEAD: &str = "| parameter | variable | used | meaning |\n|---|---|---|---|\n";
const TABLE_HEAD: &str = "| setting | flag | default | bounds | meaning |\n|---|---|---|---|---|\n";

/// A build with the feature `injector` has one setting more, which the page mentions below the table.
const NOT_IN_THE_TABLE: &str = "inject";

fn table() -> String {
    let command = without_environment(settings());
    let rows = command
        .get_arguments()
        .filter(|arg| arg.get_id() != NOT_IN_THE_TABLE)
        .map(|arg| row(&command, arg));
    rows.fold(TABLE_HEAD.to_owned(), |table, row| table + &row)
}

fn row(command: &Command, arg: &Arg) -> String {
    let flag = arg.get_long().unwrap();
    let default = match arg.get_default_values() {
        [] => "-".to_owned(),
        [value] if value.is_empty() => "empty".to_owned(),
        values => values[0].to_string_lossy().into_owned(),
    };
    let bounds = bounds(command, flag).unwrap_or_else(|| {
        let values = arg.get_possible_values();
        let names: Vec<&str> = values
            .iter()
            .map(clap::builder::PossibleValue::get_name)
            .collect();
        if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(", ")
        }
    });
    let meaning = arg.get_help().unwrap().to_string();
    format!(
        "| `{}` | `--{flag}` | {default} | {bounds} | {meaning} |\n",
        arg.get_id()
    )
}

/// The bounds of a number, from the parser's words about a number below all of them.
fn bounds(command: &Command, flag: &str) -> Option<String> {
    let refused = command
        .clone()
        .try_get_matches_from(["", &format!("--{flag}=-1")])
        .err()?
        .to_string();
    let (_, bounds) = refused.split_once("-1 is not in ")?;
    let (least, most) = bounds.lines().next()?.split_once("..=")?;
    Some(format!("{least} to {most}"))
}

fn parameter_row(parameter: &Parameter) -> String {
    let code = |name: &str| match name {
        "" => "-".to_owned(),
        name => format!("`{name}`"),
    };
    let treatment = match parameter.treatment {
        Treatment::Used => "yes".to_owned(),
        Treatment::NotUsed => "no, with a warning".to_owned(),
        Treatment::OnlyAs([]) => "refused".to_owned(),
        Treatment::OnlyAs(values) => {
            let values: Vec<String> = values.iter().map(|value| code(value)).collect();
            format!("{}; else refused", values.join(", "))
        }
    };
    let (name, variable) = (code(parameter.name), code(parameter.variable));
    format!(
        "| {name} | {variable} | {treatment} | {} |\n",
        parameter.meaning
    )
}

/// Holds a table of the page against the one that is made from the declarations, or writes it.
fn hold(heading: &str, head: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let section = page.find(heading).unwrap();
    let begin = section + page[section..].find(head).unwrap();
    let end = begin + page[begin..].find("\n\n").unwrap() + 1;
    if std::env::var_os(UPDATE_VARIABLE).is_some() {
        std::fs::write(&path, page[..begin].to_owned() + table + &page[end..]).unwrap();
        return;
    }
    for (printed, declared) in page[begin..end].lines().zip(table.lines()) {
        assert_eq!(printed, declared, "{UPDATE_VARIABLE}=1 writes the table");
    }
    assert_eq!(&page[begin..end], table, "{UPDATE_VARIABLE}=1 writes it");
}

/// One test for both tables: each writes the page.
#[test]
fn the_page_has_every_setting_and_every_parameter_of_a_database_s_address() {
    hold(HEADING, TABLE_HEAD, &table());
    let rows = PARAMETERS.iter().map(parameter_row);
    let parameters = rows.fold(PARAMETERS_HEAD.to_owned(), |table, row| table + &row);
    hold(PARAMETERS_HEADING, PARAMETERS_HEAD, &parameters);
}
