//! A file of sources, for version control: each `[[source]]` has the names of the flags of `attach`.

use std::path::Path;

use anyhow::Context;
use hushnet_realtime::store::attach::Attachment;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    source: Vec<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    table: String,
    kind: Option<String>,
    #[serde(default)]
    user: Columns,
    users: Option<String>,
    users_max: Option<u32>,
    #[serde(default)]
    on: Vec<String>,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    changed: bool,
    when: Option<String>,
    #[serde(default)]
    key: Vec<String>,
    #[serde(default)]
    replica: bool,
}

/// One column, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Columns {
    One(String),
    Several(Vec<String>),
}

impl Default for Columns {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// The sources of the file, in its order.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Attachment>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is no file of sources", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<Attachment>> {
    let file: File = toml::from_str(text)?;
    let sources = file.source.into_iter();
    Ok(sources
        .map(|source| Attachment {
            table: source.table,
            kind: source.kind,
            user_columns: match source.user {
                Columns::One(column) => vec![column],
                Columns::Several(columns) => columns,
            },
            users: source.users,
            users_max: source.users_max,
            operations: source.on,
            fields: source.fields,
            changed: source.changed,
            condition: source.when,
            keys: source.key,
            replica: source.replica,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_the_names_of_the_flags() {
        let text = r#"
            [[source]]
            table = "orders"
            user = "customer"
            [[source]]
            table = "tasks"
            kind = "task"
            user = ["owner", "reviewer"]
            users = "SELECT member FROM public.members WHERE team = NEW.team"
            on = ["insert"]
            fields = ["title"]
            changed = true
            users_max = 50
            key = ["slug"]
            when = "NOT NEW.draft"
            replica = true
        "#;
        let sources = parse(text).unwrap();
        let orders = Attachment {
            table: "orders".to_owned(),
            user_columns: vec!["customer".to_owned()],
            ..Attachment::default()
        };
        assert_eq!(sources[0], orders);
        assert_eq!(sources[1].user_columns, ["owner", "reviewer"]);
        assert_eq!(sources[1].users_max, Some(50));
        assert!(sources[1].changed && sources[1].replica);
    }

    #[test]
    fn what_is_unknown_is_named() {
        let error = parse("[[source]]\ntable = \"a\"\nusr = \"b\"").unwrap_err();
        assert!(error.to_string().contains("unknown field `usr`"), "{error}");
    }
}
