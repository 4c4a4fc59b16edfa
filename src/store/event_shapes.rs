//! The shapes of the events' JSON, from the sources in force and the catalogue.
//!
//! Must say the same of a column as `realtime.column_json()` and `to_json` do: that is how the triggers write its value.
//! A source whose column is gone is refused by name: the type of its value is not known.

use sqlx::{Connection, FromRow};

use super::attach::AttachError;
use super::migrate;
use crate::config::DatabaseUrl;

/// The JSON of a value that is not null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `true` or `false`.
    Boolean,
    /// A number of `smallint` or `integer`.
    Integer,
    /// A number of `bigint`, which may be beyond 2^53.
    Bigint,
    /// A number, or one of the texts `NaN`, `Infinity` and `-Infinity`: `numeric`, `real` and `double precision`.
    Numeric,
    /// A text.
    Text,
    /// The text of an enum, one of these labels in the order of the enum.
    Label(Vec<String>),
    /// Any JSON: `json`, `jsonb`, and types with a cast to json, as `hstore`.
    Any,
}

/// A column that an event shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The JSON of its value, or of an element where it is an array.
    pub json: Json,
    /// How deep arrays are nested; 0 is no array. An array counts as one level: PostgreSQL does not fix the number of
    /// its dimensions.
    pub arrays: usize,
    /// Whether the value may be null.
    pub is_nullable: bool,
    /// Whether the JSON of every value has at most [`SHORT_BYTES_MAX`] bytes.
    pub is_short: bool,
}

/// The longest JSON of a [short](Column::is_short) column: an enum's label has at most 63 bytes, each written in six at
/// most, within quotes.
pub const SHORT_BYTES_MAX: usize = 380;

/// The shape of the events of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventShape {
    /// The events' `type`.
    pub kind: String,
    /// The table with its schema, each quoted where it has to be.
    pub relation: String,
    /// Whether the kind is one of HushNet's, whose events have a form of their own.
    pub is_preset: bool,
    /// What `op` may be, of `insert`, `update` and `delete`, in this order.
    pub operations: Vec<&'static str>,
    /// Whether an update shows only what has changed of the fields.
    pub changed: bool,
    /// Whether a deletion shows the fields, as that of a source does which was added before migration 10.
    pub deletes_show_fields: bool,
    /// The columns of `key`. None: they are not known, since the source was added before its table was there.
    pub keys: Vec<Column>,
    /// The columns of `row` or `changed`.
    pub fields: Vec<Column>,
}

/// A row for each column of each source in force, and one of a source without columns. In `typed`, a domain is followed to
/// its base type and an array to its elements, as `realtime.column_json()` does. Arrays of arrays come of domains over
/// arrays; such arrays of enums, ranges and composite types are cast to arrays of texts.
const SHAPES: &str = r#"
    WITH RECURSIVE source AS (
        SELECT number, kind, relation, preset, operations, keys, fields, changed,
               NOT preset AND delete_layout IS NULL AND fields <> '{}' AS deletes_show_fields
        FROM realtime.sources WHERE retired_at IS NULL
    ), shown AS (
        SELECT s.number, listed.is_key, listed.position, listed.name, a.atttypid AS type,
               a.attnotnull AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_constraint AS c
                   WHERE c.conrelid = a.attrelid AND c.contype = 'n' AND c.conkey = ARRAY[a.attnum]
                     AND NOT c.convalidated) AS not_null
        FROM source AS s CROSS JOIN LATERAL (
            SELECT true, position, name FROM unnest(s.keys) WITH ORDINALITY AS key (name, position)
            UNION ALL
            SELECT false, position, name FROM unnest(s.fields) WITH ORDINALITY AS field (name, position)
        ) AS listed (is_key, position, name) LEFT JOIN pg_catalog.pg_attribute AS a
            ON a.attrelid = to_regclass(s.relation) AND a.attname = listed.name AND a.attnum > 0 AND NOT a.attisdropped
        WHERE NOT s.preset
    ), typed AS (
        SELECT number, is_key, position, type, 0 AS arrays, not_null FROM shown
        UNION ALL
        SELECT number, is_key, position, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END,
               arrays + CASE t.typtype WHEN 'd' THEN 0 ELSE 1 END,
               not_null OR arrays = 0 AND t.typtype = 'd' AND t.typnotnull
        FROM typed JOIN pg_catalog.pg_type AS t ON t.oid = type
        WHERE t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0
    ), found AS (
        SELECT number, is_key, position, not_null,
               CASE WHEN t.typtype IN ('e', 'r', 'm', 'c') THEN least(arrays, 1) ELSE arrays END AS arrays,
               CASE
                   WHEN t.typtype = 'e' AND arrays <= 1 THEN 'label'
                   WHEN t.typtype IN ('e', 'r', 'm', 'c') THEN 'text'
                   WHEN t.oid = 'pg_catalog.bool'::regtype THEN 'boolean'
                   WHEN t.oid IN ('pg_catalog.int2'::regtype, 'pg_catalog.int4'::regtype) THEN 'integer'
                   WHEN t.oid = 'pg_catalog.int8'::regtype THEN 'bigint'
                   WHEN t.oid IN ('pg_catalog.float4'::regtype, 'pg_catalog.float8'::regtype,
                                  'pg_catalog.numeric'::regtype) THEN 'numeric'
                   WHEN t.oid IN ('pg_catalog.json'::regtype, 'pg_catalog.jsonb'::regtype) THEN 'any'
                   WHEN t.oid >= 16384 AND EXISTS (
                       SELECT FROM pg_catalog.pg_cast WHERE castsource = t.oid AND castmethod = 'f'
                           AND casttarget = 'pg_catalog.json'::regtype) THEN 'any'
                   ELSE 'text'
               END AS json,
               ARRAY(SELECT enumlabel::text FROM pg_catalog.pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder) AS labels,
               arrays = 0 AND (t.typtype = 'e' OR t.oid IN (
                   'pg_catalog.bool'::regtype, 'pg_catalog.int2'::regtype, 'pg_catalog.int4'::regtype,
                   'pg_catalog.int8'::regtype, 'pg_catalog.float4'::regtype, 'pg_catalog.float8'::regtype,
                   'pg_catalog.uuid'::regtype, 'pg_catalog.date'::regtype, 'pg_catalog.time'::regtype,
                   'pg_catalog.timetz'::regtype, 'pg_catalog.timestamp'::regtype, 'pg_catalog.timestamptz'::regtype
               )) AS is_short
        FROM typed JOIN pg_catalog.pg_type AS t ON t.oid = type
        WHERE t.typtype <> 'd' AND (t.typcategory <> 'A' OR t.typelem = 0)
    )
    SELECT kind, relation, preset AS is_preset, operations, changed, deletes_show_fields, is_key, name,
           CASE WHEN to_regclass(relation) IS NULL THEN format('there is no table %s', relation)
                WHEN name IS NOT NULL AND json IS NULL THEN format('%s has no column %I', relation, name) END AS missing,
           json, arrays, NOT found.not_null AS is_nullable, is_short, labels
    FROM source LEFT JOIN shown USING (number) LEFT JOIN found USING (number, is_key, position)
    ORDER BY kind COLLATE "C", is_key DESC, position"#;

#[derive(Debug, FromRow)]
struct Row {
    kind: String,
    relation: String,
    is_preset: bool,
    operations: Vec<String>,
    changed: bool,
    deletes_show_fields: bool,
    /// `None` of a source without columns.
    is_key: Option<bool>,
    name: Option<String>,
    /// Why the column is not there.
    missing: Option<String>,
    /// `None`, and all that follows, of a column that is not there.
    json: Option<String>,
    arrays: Option<i32>,
    is_nullable: Option<bool>,
    is_short: Option<bool>,
    labels: Option<Vec<String>>,
}

impl Row {
    fn shape(&self) -> EventShape {
        EventShape {
            kind: self.kind.clone(),
            relation: self.relation.clone(),
            is_preset: self.is_preset,
            operations: operations(&self.operations),
            changed: self.changed,
            deletes_show_fields: self.deletes_show_fields,
            keys: Vec::new(),
            fields: Vec::new(),
        }
    }

    fn column(self, name: String) -> Result<Column, AttachError> {
        if let Some(missing) = self.missing {
            let kind = self.kind;
            return Err(AttachError::Refused {
                message: format!("the source of the kind {kind}: {missing}"),
                hint: format!(
                    "Attach the table again, or end its events with `hushnet-realtime detach {kind}`"
                ),
            });
        }
        let json = match self.json.as_deref() {
            Some("boolean") => Json::Boolean,
            Some("integer") => Json::Integer,
            Some("bigint") => Json::Bigint,
            Some("numeric") => Json::Numeric,
            Some("label") => Json::Label(self.labels.unwrap_or_default()),
            Some("any") => Json::Any,
            _ => Json::Text,
        };
        Ok(Column {
            name,
            json,
            arrays: usize::try_from(self.arrays.unwrap_or_default()).unwrap_or_default(),
            is_nullable: self.is_nullable.unwrap_or(true),
            is_short: self.is_short.unwrap_or(false),
        })
    }
}

/// What `op` may be. An update is an insert to a user who gains the row, and a delete to a user who loses it.
fn operations(of_source: &[String]) -> Vec<&'static str> {
    let has = |operation: &str| of_source.iter().any(|of_source| of_source == operation);
    let all = ["insert", "update", "delete"].into_iter();
    all.filter(|operation| has("update") || has(operation))
        .collect()
}

/// The shapes of the events of all sources in force, in the order of their kinds' bytes.
///
/// # Errors
/// [`AttachError`]: `Refused` where a column that a source names is gone.
pub async fn event_shapes(url: &DatabaseUrl) -> Result<Vec<EventShape>, AttachError> {
    let mut connection = migrate::connect(url).await?;
    let rows: Vec<Row> = sqlx::query_as(SHAPES).fetch_all(&mut connection).await?;
    connection.close().await?;
    let mut shapes: Vec<EventShape> = Vec::new();
    for mut row in rows {
        let mut shape = match shapes.pop() {
            Some(shape) if shape.kind == row.kind => shape,
            before => {
                shapes.extend(before);
                row.shape()
            }
        };
        if let (Some(is_key), Some(name)) = (row.is_key, row.name.take()) {
            let columns = if is_key {
                &mut shape.keys
            } else {
                &mut shape.fields
            };
            columns.push(row.column(name)?);
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_may_be_any_operation_to_a_user() {
        let of = |operations_of_source: &[&str]| {
            let owned: Vec<_> = operations_of_source
                .iter()
                .map(|&text| text.to_owned())
                .collect();
            operations(&owned)
        };
        assert_eq!(of(&["update"]), ["insert", "update", "delete"]);
        assert_eq!(of(&["delete", "insert"]), ["insert", "delete"]);
        assert_eq!(of(&["delete"]), ["delete"]);
    }
}
