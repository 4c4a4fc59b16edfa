//! A row of the log: the columns that it is made of, and what it tells.
//!
//! From migration 9 on the log keeps what an event is made of, and its JSON is composed here, by the layout of the
//! event's source. Revocations, truncations and what the schema before has written are JSON, which is parsed. Both become
//! a [`Notification`].

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::fields::Fields;
use crate::protocol::{
    Kind, Kinds, Layout, Notification, Op, Subject, UserKey, Xid, is_asynchronous, is_truncation,
};

/// About the length of what a layout adds to an event's values, in bytes. [`stored_bytes`] has the same.
const LAYOUT_BYTES: usize = 100;

/// The columns that a row is made of, in a query of `realtime.events`. The JSON of a row that is stored without it is
/// not asked for: PostgreSQL would compose it. In the schema before a migration the names of its columns are no columns
/// of `realtime.events` and mean those of `reading`.
macro_rules! stored {
    () => {
        "CASE WHEN is_composed THEN NULL ELSE payload END AS payload, source, op, fields, asynchronous, user_id"
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
            " THEN fields END AS fields, asynchronous, user_id"
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

/// What the log has of an event, or of something else that the service is told of.
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
}

/// What a row of the log tells.
#[derive(Debug)]
pub enum LogRow<'a> {
    /// An event, or a revocation.
    Notification(Notification<'a>),
    /// A table was emptied with TRUNCATE.
    Truncation,
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
        let fields: Option<Fields> = row.try_get(first + 3)?;
        Ok(Some(Self::Parts(Parts {
            source,
            op: Op::of_letter(letter.map(i8::cast_unsigned)),
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
                    LogRow::Notification(notification)
                }
                Err(_) if is_truncation(json) => LogRow::Truncation,
                Err(error) => {
                    tracing::warn!(event = "log_row_malformed", id, %error);
                    LogRow::Malformed
                }
            },
        }
    }
}

impl Parts {
    /// The kind of its source and how its JSON is written, if the source is known by the layout of this event.
    fn find_source(&self, kinds: &Kinds) -> Option<(Kind, Arc<Layout>)> {
        let source = kinds.source(self.source);
        source.filter(|(_, layout)| layout.fields() == self.fields.count())
    }

    fn compose<'a>(
        &self,
        id: i64,
        xid: Option<Xid>,
        kinds: &Kinds,
        text: &'a mut String,
    ) -> Option<Notification<'a>> {
        let (kind, layout) = self.find_source(kinds)?;
        let event = (id, self.user, self.op);
        layout.compose(text, event, self.fields.bytes(), |number| {
            self.fields.get(number)
        });
        Some(Notification {
            subject: Subject::Event(kind),
            other_kind: None,
            user: self.user,
            id: Some(id),
            xid,
            asynchronous: self.asynchronous,
            by_reference: false,
            open_text: text,
        })
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
