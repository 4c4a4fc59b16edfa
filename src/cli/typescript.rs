//! The module of TypeScript that `types` writes. The same shapes give the same text.
//!
//! Names of kinds, columns, labels and tables may be hostile. Each is written as an identifier, or escaped, so that it cannot
//! end the literal or the comment in which it is.

use std::fmt::Write;

use hushnet_realtime::store::event_shapes::{Column, EventShape, Json};

/// What every module begins with. The shapes of HushNet's kinds are those of `clients/typescript/src/types.ts`.
const BEGINNING: &str = "\
/* eslint-disable */
// Made by `hushnet-realtime types --typescript` from the sources in force. Run it again after a change of a source or of a
// table's columns. With `--out FILE --check` it compares the file with the database.

/** A bigint. JSON.parse() loses digits beyond 2^53. */
export type Bigint = number;

/** A numeric, real or double precision. JSON.parse() loses digits beyond those of a number. */
export type Numeric = number | 'NaN' | 'Infinity' | '-Infinity';

/** What every event has. */
export interface EventBase<Kind> {
  readonly type: Kind;
  /** The user whom the event is for: a UUID, a bigint in decimal digits, or text, as the database has it. */
  readonly user_id: string;
  /** The event's number, below 2^53, the same for every device of the user. Missing without a log. */
  readonly id?: number;
  /** The newest cursor that the connection had passed with this event. Missing around a replay. */
  readonly cursor?: string | null;
}

/** An event that shows the row's key alone. */
export interface KeyEvent<Kind extends keyof Keys, Operation> extends EventBase<Kind> {
  readonly op: Operation;
  readonly key: Keys[Kind];
  readonly truncated?: never;
}

/** An event that shows the row. */
export interface RowEvent<Kind extends keyof Keys & keyof Rows, Operation> extends KeyEvent<Kind, Operation> {
  readonly row: Rows[Kind];
}

/** An update that shows those columns of the row that have changed. */
export interface ChangedEvent<Kind extends keyof Keys & keyof Rows, Operation> extends KeyEvent<Kind, Operation> {
  readonly changed: Partial<Rows[Kind]>;
}

/** An event that is too long: it shows the key alone, and the row has to be fetched. */
export interface TruncatedEvent<Kind extends keyof Keys, Operation, Key = Keys[Kind]> extends EventBase<Kind> {
  readonly op: Operation;
  readonly key: Key;
  readonly truncated: true;
}

/** A key that may be too long itself: then each of its columns is null. */
export type LongKey<Key> = { readonly [Column in keyof Key]: Key[Column] | null };
";

/// Up to so many short columns make a key that is never too long: each has a name of at most 63 bytes and
/// [`SHORT_BYTES_MAX`](hushnet_realtime::store::event_shapes::SHORT_BYTES_MAX), and a server sends events of 8,192 bytes at
/// least.
const SHORT_KEY_COLUMNS_MAX: usize = 8;

/// The module with the shapes of these events.
pub(super) fn module(shapes: &[EventShape]) -> String {
    let own = || shapes.iter().filter(|shape| !shape.is_preset);
    let keys = own().map(|shape| {
        let key = if shape.keys.is_empty() {
            "Readonly<Record<string, unknown>>".to_owned()
        } else {
            columns(&shape.keys)
        };
        member(shape, &key)
    });
    let with_fields = own().filter(|shape| !shape.fields.is_empty());
    let rows = with_fields.map(|shape| member(shape, &columns(&shape.fields)));
    let events = shapes.iter().map(|shape| member(shape, &event(shape)));
    [
        BEGINNING.to_owned(),
        interface("The columns of each kind's `key`.", "Keys", keys),
        interface("The columns of each kind's `row`.", "Rows", rows),
        interface("The events by their `type`.", "Events", events),
    ]
    .concat()
}

fn interface(comment: &str, name: &str, members: impl Iterator<Item = String>) -> String {
    let members = members.collect::<Vec<_>>().concat();
    let line = if members.is_empty() { "" } else { "\n" };
    format!("\n/** {comment} */\nexport interface {name} {{{line}{members}}}\n")
}

/// The member of an interface that has the name of the kind.
fn member(shape: &EventShape, of_type: &str) -> String {
    let relation = in_comment(&shape.relation);
    let name = property(&shape.kind);
    // The forms of an event begin a line each.
    let space = if of_type.starts_with('\n') { "" } else { " " };
    format!("  /** {relation} */\n  {name}:{space}{of_type};\n")
}

/// The members of an object, one a line.
fn columns(columns: &[Column]) -> String {
    let lines = columns.iter().map(|column| {
        let name = property(&column.name);
        format!("    readonly {name}: {};\n", value(column))
    });
    format!("{{\n{}  }}", lines.collect::<String>())
}

/// The type of a column's value.
fn value(column: &Column) -> String {
    let of_json = match &column.json {
        Json::Boolean => "boolean".to_owned(),
        Json::Integer => "number".to_owned(),
        Json::Bigint => "Bigint".to_owned(),
        Json::Numeric => "Numeric".to_owned(),
        Json::Text => "string".to_owned(),
        Json::Label(labels) if labels.is_empty() => "never".to_owned(),
        Json::Label(labels) => union(labels.iter().map(|label| literal(label))),
        Json::Any => "unknown".to_owned(),
    };
    // An element may always be null.
    let nested = (0..column.arrays).fold(of_json, |of_element, _| match or_null(&of_element) {
        union if union.contains(' ') => format!("readonly ({union})[]"),
        one => format!("readonly {one}[]"),
    });
    if column.is_nullable {
        or_null(&nested)
    } else {
        nested
    }
}

fn or_null(of_value: &str) -> String {
    match of_value {
        "unknown" => of_value.to_owned(),
        _ => format!("{of_value} | null"),
    }
}

fn union(of: impl Iterator<Item = String>) -> String {
    of.collect::<Vec<_>>().join(" | ")
}

/// The forms of the events of a kind.
fn event(shape: &EventShape) -> String {
    if shape.is_preset {
        return preset(&shape.kind);
    }
    let (mut row, mut changed, mut key) = (Vec::new(), Vec::new(), Vec::new());
    for &operation in &shape.operations {
        match operation {
            "delete" if !shape.deletes_show_fields => &mut key,
            _ if shape.fields.is_empty() => &mut key,
            "update" if shape.changed => &mut changed,
            _ => &mut row,
        }
        .push(operation);
    }
    let has_long_key = shape.keys.len() > SHORT_KEY_COLUMNS_MAX
        || shape.keys.is_empty()
        || shape.keys.iter().any(|column| !column.is_short);
    let truncated = |operation: &&str| has_long_key || !key.contains(operation);
    let truncated: Vec<_> = shape.operations.iter().copied().filter(truncated).collect();
    let kind = literal(&shape.kind);
    let long_key = if has_long_key {
        format!(", LongKey<Keys[{kind}]>")
    } else {
        String::new()
    };
    let forms = [
        ("RowEvent", row, ""),
        ("ChangedEvent", changed, ""),
        ("KeyEvent", key, ""),
        ("TruncatedEvent", truncated, &*long_key),
    ];
    let forms = forms
        .iter()
        .filter(|(_, operations, _)| !operations.is_empty());
    let forms = forms.map(|(form, operations, more)| {
        let operations = union(operations.iter().map(|operation| literal(operation)));
        format!("\n    | {form}<{kind}, {operations}{more}>")
    });
    forms.collect::<Vec<_>>().concat()
}

/// The events of one of HushNet's kinds.
fn preset(kind: &str) -> String {
    let members = match kind {
        "message" => " & { readonly chat_id: string | null }",
        "session" => {
            " & { readonly sender_device_id: string; readonly receiver_device_id: string }"
        }
        "pending_session" => {
            " & {
    readonly recipient_device_id: string;
    readonly sender_device_id: string;
    readonly pending_session_id: string;
    readonly created_at: string | null;
  }"
        }
        _ => "",
    };
    format!("EventBase<{}>{members}", literal(kind))
}

/// The name of a member.
fn property(name: &str) -> String {
    let is_identifier = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '_');
    if is_identifier {
        name.to_owned()
    } else {
        literal(name)
    }
}

/// A literal of the text, in one line. Letters of all scripts stand as they are; every other character that is not of ASCII
/// is escaped: it may be invisible, end a line, or change the direction of the text.
fn literal(text: &str) -> String {
    let mut literal = String::from("'");
    for character in text.chars() {
        match character {
            '\'' | '\\' => literal.extend(['\\', character]),
            ' '..='~' => literal.push(character),
            _ if character.is_alphanumeric() => literal.push(character),
            _ => escape(&mut literal, character),
        }
    }
    literal.push('\'');
    literal
}

/// The name within a comment. Characters that could end the comment or begin a tag are escaped.
fn in_comment(name: &str) -> String {
    let mut comment = String::new();
    for character in name.chars() {
        match character {
            ' ' | '"' | '$' | '.' | '_' | '-' => comment.push(character),
            _ if character.is_alphanumeric() => comment.push(character),
            _ => escape(&mut comment, character),
        }
    }
    comment
}

fn escape(text: &mut String, character: char) {
    // A String takes everything.
    let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_identifier_or_a_literal_that_it_cannot_end() {
        for (name, expected) in [
            ("status", "status"),
            ("_a1", "_a1"),
            ("class", "class"),
            ("1e3", "'1e3'"),
            ("a.b-c", "'a.b-c'"),
            ("", "''"),
            ("größe", "'größe'"),
            ("a'; } evil(); //\\", "'a\\'; } evil(); //\\\\'"),
            (
                "a\nb\u{2028}\u{202e}\u{7f}`${x}`",
                "'a\\u{a}b\\u{2028}\\u{202e}\\u{7f}`${x}`'",
            ),
        ] {
            assert_eq!(property(name), expected);
        }
        assert_eq!(
            in_comment("public.\"a*/\n@x<b>\""),
            "public.\"a\\u{2a}\\u{2f}\\u{a}\\u{40}x\\u{3c}b\\u{3e}\""
        );
    }

    fn column(json: Json, arrays: usize, is_nullable: bool) -> Column {
        Column {
            name: "a".to_owned(),
            json,
            arrays,
            is_nullable,
            is_short: false,
        }
    }

    #[test]
    fn a_value_has_the_type_of_its_json() {
        let labels = |labels: &[&str]| Json::Label(labels.iter().map(|&l| l.to_owned()).collect());
        for (column, expected) in [
            (column(Json::Boolean, 0, false), "boolean"),
            (column(Json::Numeric, 0, true), "Numeric | null"),
            (column(Json::Any, 0, true), "unknown"),
            (column(Json::Any, 1, true), "readonly unknown[] | null"),
            (
                column(Json::Text, 2, false),
                "readonly (readonly (string | null)[] | null)[]",
            ),
            (
                column(labels(&["it's", "b"]), 0, true),
                "'it\\'s' | 'b' | null",
            ),
            (
                column(labels(&["a", "b"]), 1, false),
                "readonly ('a' | 'b' | null)[]",
            ),
            (column(labels(&[]), 0, true), "never | null"),
        ] {
            assert_eq!(value(&column), expected);
        }
    }

    fn shape(operations: &[&'static str], fields: Vec<Column>) -> EventShape {
        EventShape {
            kind: "order".to_owned(),
            relation: "public.orders".to_owned(),
            is_preset: false,
            operations: operations.to_vec(),
            changed: false,
            deletes_show_fields: false,
            keys: vec![Column {
                is_short: true,
                ..column(Json::Integer, 0, false)
            }],
            fields,
        }
    }

    #[test]
    fn each_operation_has_the_form_that_it_shows() {
        let all = ["insert", "update", "delete"];
        let fields = vec![column(Json::Text, 0, true)];
        assert_eq!(
            event(&shape(&all, Vec::new())),
            "\n    | KeyEvent<'order', 'insert' | 'update' | 'delete'>"
        );
        assert_eq!(
            event(&EventShape {
                changed: true,
                ..shape(&all, fields.clone())
            }),
            "\n    | RowEvent<'order', 'insert'>\n    | ChangedEvent<'order', 'update'>\n    | KeyEvent<'order', 'delete'>\
             \n    | TruncatedEvent<'order', 'insert' | 'update'>"
        );
        // As before migration 10.
        assert_eq!(
            event(&EventShape {
                deletes_show_fields: true,
                ..shape(&["delete"], fields.clone())
            }),
            "\n    | RowEvent<'order', 'delete'>\n    | TruncatedEvent<'order', 'delete'>"
        );
        assert_eq!(
            event(&EventShape {
                keys: fields,
                ..shape(&["insert"], Vec::new())
            }),
            "\n    | KeyEvent<'order', 'insert'>\n    | TruncatedEvent<'order', 'insert', LongKey<Keys['order']>>"
        );
    }
}
