//! A row of the log: the columns that it is made of, and what it tells.
//!
//! From migration 9 on the log keeps what an event is made of, and its JSON is composed here, by the layout of the
//! event's source. Revocations, truncations and what the schema before has written are JSON, which is parsed. Both become
//! a [`Notification`].

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::fields::Fields;
use crate::protocol::{
    Gap, INLINE_BYTES_MAX, InLog, Kind, Kinds, Layout, Notification, Op, Subject, UserKey, Xid,
    is_asynchronous,
};

/// About the length of what a layout adds to an event's values, in bytes. [`stored_bytes`] has the same.
const LAYOUT_BYTES: usize = 100;

/// The longest values of an event that a read of many returns, in bytes. [`stored`] has the same.
pub(super) const READ_BYTES_MAX: i32 = 8_000;

/// The columns that a row is made of, in a query of `realtime.events`. The JSON of a row that is stored without it is
/// not asked for: PostgreSQL would compose it. Nor are the values of a large event, but for its own where another row has
/// the rest. In the schema before a migration the names of its columns are no columns of `realtime.events` and mean those
/// of `reading`.
macro_rules! stored {
    () => {
        "CASE WHEN is_composed THEN NULL ELSE payload END AS payload, source, op,
         CASE WHEN bytes > 8000 THEN own_fields ELSE fields END AS fields, asynchronous, user_id, bytes, body"
    };
}
pub(super) use stored;

/// The same columns in a query of such a query; where the condition does not hold, without an event.
macro_rules! stored_if {
    ($condition:literal) => {
        concat!(
            "CASE WHEN ",
            $condition,
            " THEN payload END AS payload, CASE WHEN ",
            $condition,
            " THEN source END AS source, op, CASE WHEN ",
            $condition,
            " THEN fields END AS fields, asynchronous, user_id, bytes, body"
        )
    };
}
pub(super) use stored_if;

/// About the length of the event's JSON.
macro_rules! stored_bytes {
    () => {
        "coalesce(octet_length(payload), 100 + coalesce(octet_length(array_to_string(fields, '')), 0))"
    };
}
pub(super) use stored_bytes;

/// Whether the row tells of a revocation. The kind of a row with a source need not be looked up.
macro_rules! is_revocation {
    () => {
        "(source IS NULL AND kind = 'revocation')"
    };
}
pub(super) use is_revocation;

/// What the log has of an event, or of something else that concerns the service.
#[derive(Debug)]
pub enum Body {
    /// Its JSON.
    Json(String),
    /// What its JSON is composed of.
    Parts(Parts),
}

/// What an event's JSON is composed of.
#[derive(Debug)]
pub struct Parts {
    /// The number of its source.
    pub source: i16,
    /// What was done to the row.
    pub op: Op,
    /// The user whose event it is.
    pub user: UserKey,
    /// What it shows of the row.
    pub fields: Fields,
    /// Whether its transaction commits without waiting for the disk.
    pub asynchronous: bool,
    /// Whether the log has its key alone.
    pub truncated: bool,
    /// The length of the values in its JSON, where these are left in the log.
    pub left: Option<u32>,
    /// The row that has the values, if it is another one.
    pub body: Option<i64>,
}

/// What a row of the log tells.
#[derive(Debug)]
pub enum LogRow<'a> {
    /// An event, or a revocation.
    Notification(Notification<'a>),
    /// Something has changed of which there is no event.
    Gap(Gap),
    /// An event of a source that is not known, or is known by another layout.
    UnknownSource(i16),
    /// JSON that none of our triggers writes. It has been logged.
    Malformed,
}

impl Body {
    /// Reads the columns of [`stored`], from this one on. `None` for a row without an event.
    pub(super) fn of_columns(row: &PgRow, first: usize) -> Result<Option<Self>, sqlx::Error> {
        if let Some(json) = row.try_get(first)? {
            return Ok(Some(Self::Json(json)));
        }
        let (Some(source), Some(key)) = (
            row.try_get(first + 1)?,
            row.try_get::<Option<Uuid>, _>(first + 5)?,
        ) else {
            return Ok(None);
        };
        let letter: Option<i8> = row.try_get(first + 2)?;
        let letter = letter.map(i8::cast_unsigned);
        let fields: Option<Fields> = row.try_get(first + 3)?;
        let bytes: Option<i32> = row.try_get(first + 6)?;
        let left = bytes.filter(|bytes| *bytes > READ_BYTES_MAX);
        Ok(Some(Self::Parts(Parts {
            source,
            op: Op::of_letter(letter),
            truncated: letter.is_some_and(|letter| letter.is_ascii_uppercase()),
            left: left.map(i32::unsigned_abs),
            body: row.try_get(first + 7)?,
            user: key.into(),
            fields: fields.unwrap_or_default(),
            asynchronous: row.try_get(first + 4)?,
        })))
    }

    /// About the length of its JSON.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            Self::Parts(parts) => parts.fields.bytes() + LAYOUT_BYTES,
        }
    }

    /// Whether its transaction committed without waiting for the disk.
    pub(super) fn is_asynchronous(&self) -> bool {
        match self {
            Self::Json(json) => is_asynchronous(json),
            Self::Parts(parts) => parts.asynchronous,
        }
    }

    /// Whether nothing need be asked of the database to read it.
    pub(super) fn is_known(&self, kinds: &Kinds) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Parts(parts) => parts.find_source(kinds).is_some(),
        }
    }

    /// What it tells. JSON that is composed is written into `text`.
    pub fn read<'a>(
        &'a self,
        id: i64,
        xid: Option<Xid>,
        kinds: &Kinds,
        text: &'a mut String,
    ) -> LogRow<'a> {
        match self {
            Self::Parts(parts) => match parts.compose(id, xid, kinds, text) {
                Some(notification) => LogRow::Notification(notification),
                None => LogRow::UnknownSource(parts.source),
            },
            Self::Json(json) => match Notification::of_row(json, xid) {
                Ok(mut notification) => {
                    kinds.resolve(&mut notification);
                    if json.len() > kinds.event_bytes_max().min(INLINE_BYTES_MAX) {
                        shorten(&mut notification, json, kinds.event_bytes_max(), text);
                    }
                    LogRow::Notification(notification)
                }
                Err(error) => Gap::of_row(json).map_or_else(
                    || {
                        tracing::warn!(event = "log_row_malformed", id, %error);
                        LogRow::Malformed
                    },
                    LogRow::Gap,
                ),
            },
        }
    }
}

impl Parts {
    /// The kind of its source and how its JSON is written, if the source is known by the layout of this event.
    fn find_source(&self, kinds: &Kinds) -> Option<(Kind, Arc<Layout>)> {
        let source = kinds.source(self.source);
        let is_left = self.left.is_some();
        source.filter(|(_, layout)| is_left || layout.of(self.op).fields() == self.fields.count())
    }

    /// Writes its JSON into `text`, or the beginning of it where the rest is left in the log.
    fn write(
        &self,
        id: i64,
        layout: &Layout,
        bytes_max: usize,
        text: &mut String,
    ) -> Option<InLog> {
        let event = (id, self.user, self.op);
        let at_most = layout.fixed_bytes_max() + self.fields.bytes();
        if self.left.is_none() && !self.truncated && at_most <= bytes_max.min(INLINE_BYTES_MAX) {
            layout.compose(text, event, self.fields.bytes(), |number| {
                self.fields.get(number)
            });
            return None;
        }
        let field_bytes = self.left.map(|bytes| bytes as usize);
        let field_bytes = field_bytes.unwrap_or_else(|| self.fields.json_bytes());
        let bytes = layout.bytes(event, field_bytes);
        let is_short = self.truncated || bytes > bytes_max;
        if self.left.is_none() && (is_short || bytes <= INLINE_BYTES_MAX) {
            compose(
                text,
                layout,
                event,
                (&self.fields, None),
                is_short,
                bytes_max,
            );
            return None;
        }
        let beginning = layout.truncated().unwrap_or(layout);
        // What the row has of its own is the user's id, where ids are text.
        let own = |number| self.left.and_then(|_| self.fields.get(number));
        beginning.compose(text, event, 0, own);
        Some(InLog {
            body: self.body.unwrap_or(id),
            source: Some(self.source),
            op: self.op,
            truncated: self.truncated,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        })
    }

    fn compose<'a>(
        &self,
        id: i64,
        xid: Option<Xid>,
        kinds: &Kinds,
        text: &'a mut String,
    ) -> Option<Notification<'a>> {
        let (kind, layout) = self.find_source(kinds)?;
        let in_log = self.write(id, layout.of(self.op), kinds.event_bytes_max(), text);
        Some(Notification {
            subject: Subject::Event(kind),
            other_kind: None,
            user: self.user,
            id: Some(id),
            xid,
            asynchronous: self.asynchronous,
            by_reference: false,
            in_log,
            open_text: text,
        })
    }
}

/// Writes the JSON of an event, without its closing brace. Of a long one the key, or the members of the key alone where
/// that is long, too. `user` is the JSON of the user's id where that is text and the fields are another user's.
pub(super) fn compose(
    text: &mut String,
    layout: &Layout,
    event: (i64, UserKey, Op),
    (fields, user): (&Fields, Option<&str>),
    is_short: bool,
    bytes_max: usize,
) {
    let user_field = layout.user_field();
    let field = |number| match user {
        Some(user) if Some(number) == user_field => Some(user),
        _ => fields.get(number),
    };
    if !is_short {
        layout.compose(text, event, fields.bytes(), field);
        if text.len() < bytes_max {
            return;
        }
    }
    let short = layout.truncated().unwrap_or(layout);
    let of_key = short.numbers().filter_map(field).map(str::len).sum();
    short.compose(text, event, of_key, field);
    if text.len() >= bytes_max {
        short.compose(text, event, 0, |number| {
            field(number).filter(|_| Some(number) == user_field)
        });
    }
}

/// Of an event that the log has as long JSON, the notification keeps the beginning; of one that is too long, the key.
fn shorten<'a>(
    notification: &mut Notification<'a>,
    json: &str,
    bytes_max: usize,
    text: &'a mut String,
) {
    let (Subject::Event(_), Some(id)) = (notification.subject, notification.id) else {
        return;
    };
    *text = beginning_of(json, notification.user, id, bytes_max);
    notification.open_text = text;
    if json.len() <= bytes_max {
        notification.in_log = Some(InLog {
            body: id,
            source: None,
            op: Op::Delete,
            truncated: false,
            bytes: u32::try_from(json.len()).unwrap_or(u32::MAX),
        });
    }
}

/// The JSON of an event that is too long, without its closing brace, made of its JSON.
pub(super) fn beginning_of(json: &str, user: UserKey, id: i64, bytes_max: usize) -> String {
    #[derive(Deserialize, Default)]
    struct Shown {
        #[serde(rename = "type", default)]
        kind: Value,
        op: Option<Value>,
        key: Option<Value>,
    }
    let shown: Shown = serde_json::from_str(json).unwrap_or_default();
    let user_id = user.uuid();
    let text = |key: Option<Value>| {
        let member = |name, value: Option<Value>| {
            value.map_or(String::new(), |value| format!(r#", "{name}" : {value}"#))
        };
        let (op, key) = (member("op", shown.op.clone()), member("key", key));
        let kind = &shown.kind;
        format!(
            r#"{{"type" : {kind}{op}, "user_id" : "{user_id}"{key}, "truncated" : true, "id" : {id}"#
        )
    };
    let with_key = text(shown.key.clone());
    if with_key.len() < bytes_max {
        with_key
    } else {
        text(None)
    }
}

/// Logs that an event is skipped whose source is not known after the sources were read again.
pub fn skip_unknown(id: i64, source: i16) {
    tracing::warn!(
        event = "log_row_of_unknown_source",
        id,
        source,
        advice = "realtime.sources has no row of this number, or one with another layout than the event's; the event is \
                  skipped"
    );
}
