//! A row of the log as the write-ahead log has it.
//!
//! What a row is made of is the same as in a read of the log (`log_row`). Only where another row has its values they are
//! those of a row that the same transaction has written just before.

use std::collections::HashMap;

use bytes::Bytes;
use hushnet_replication::{Relation, Value};
use uuid::Uuid;

use super::chunks::ChunkRow;
use super::fields::Fields;
use super::log_row::{Body, Parts, READ_BYTES_MAX};
use crate::protocol::{Op, Xid};

/// Tables that are remembered. The publication has one.
const RELATIONS_MAX: usize = 16;
/// The kind of a barrier's row.
const BARRIER: &str = "barrier";

/// What a row of the log is for whoever routes events.
#[derive(Debug)]
pub enum StreamedRow {
    /// An event, or something else that is for clients.
    Event(Xid, ChunkRow),
    /// A barrier of any server, as it is notified.
    Barrier(Xid, String),
    /// What can only be read from the log.
    Unread(Xid),
}

impl StreamedRow {
    /// The transaction that has written it.
    #[must_use]
    pub fn xid(&self) -> Xid {
        match self {
            Self::Event(xid, _) | Self::Barrier(xid, _) | Self::Unread(xid) => *xid,
        }
    }

    /// The memory that it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let own = match self {
            Self::Event(_, row) => row.body.bytes(),
            Self::Barrier(_, text) => text.len(),
            Self::Unread(_) => 0,
        };
        size_of::<Self>() + own
    }
}

/// A row that cannot be read: the publication leaves columns out, or the log is of a release that is not known.
#[derive(Debug, thiserror::Error)]
#[error("the stream has no readable column {0}")]
pub(super) struct Unreadable(&'static str);

/// Where the columns are in a row.
#[derive(Debug)]
struct Columns(HashMap<String, usize>);

/// Reads the rows of one stream.
#[derive(Debug, Default)]
pub(super) struct Rows {
    relations: HashMap<u32, Columns>,
    /// The last row of this transaction that others may have their values in.
    body: Option<(i64, Fields)>,
}

impl Rows {
    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.body = None;
    }

    /// Rows of this table follow.
    pub(super) fn describe(&mut self, relation: Relation) {
        if self.relations.len() >= RELATIONS_MAX {
            self.relations.clear();
        }
        let is_log = (relation.schema.as_str(), relation.name.as_str()) == ("realtime", "log");
        if is_log {
            let columns = relation.columns.into_iter().enumerate();
            let columns = columns.map(|(place, name)| (name, place)).collect();
            self.relations.insert(relation.id, Columns(columns));
        } else {
            self.relations.remove(&relation.id);
        }
    }

    /// What the row is; `None` for one of another table, and for one that tells nothing.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(super) fn read(
        &mut self,
        relation: u32,
        values: &[Value],
    ) -> Result<Option<StreamedRow>, Unreadable> {
        let Some(columns) = self.relations.get(&relation) else {
            return Ok(None);
        };
        let row = Row { columns, values };
        let xid = row
            .number("xid")?
            .and_then(|xid: i64| Xid::new(xid.unsigned_abs()));
        let xid = xid.ok_or(Unreadable("xid"))?;
        let id = row.number("id")?.ok_or(Unreadable("id"))?;
        if let Some(payload) = row.bytes("payload")? {
            let payload = text("payload", payload)?;
            let kind = row.bytes("kind")?;
            if kind.is_some_and(|kind| kind == BARRIER.as_bytes()) {
                return Ok(Some(StreamedRow::Barrier(xid, payload)));
            }
            // What resets clients: a read of the log finds the cursor that they go on from.
            if row.bytes("user_key")?.is_none() {
                return Ok(Some(StreamedRow::Unread(xid)));
            }
            let (xid_of_row, body) = (Some(xid), Body::Json(payload));
            let row = ChunkRow {
                id,
                xid: xid_of_row,
                body,
            };
            return Ok(Some(StreamedRow::Event(xid, row)));
        }
        Self::read_parts(&mut self.body, (id, xid), &row)
    }

    /// An event of a source.
    fn read_parts(
        body: &mut Option<(i64, Fields)>,
        (id, xid): (i64, Xid),
        row: &Row<'_>,
    ) -> Result<Option<StreamedRow>, Unreadable> {
        let (Some(source), Some(user)) = (row.number("source")?, row.bytes("user_key")?) else {
            return Ok(None);
        };
        let source = i16::try_from(source).map_err(|_| Unreadable("source"))?;
        let user = Uuid::from_slice(user).map_err(|_| Unreadable("user_key"))?;
        let letter = row.bytes("op")?.and_then(|op| op.first().copied());
        let bytes = row
            .number("bytes")?
            .map(|bytes| i32::try_from(bytes).unwrap_or(i32::MAX));
        let left = bytes.filter(|bytes| *bytes > READ_BYTES_MAX);
        let of_other = row.number("body")?;
        let own = row.bytes("fields")?;
        let own = own.map_or_else(Fields::default, |array| Fields::of_array(array));
        let fields = match (left, bytes, of_other) {
            // The values are left in the log, but for what is this row's own.
            (Some(_), _, None) => Fields::default(),
            (Some(_), _, Some(_)) | (None, None, None) => own,
            (None, Some(_), None) => {
                *body = Some((id, own.clone()));
                own
            }
            (None, _, Some(other)) => match body {
                Some((of, kept)) if *of == other => kept.beginning_with(&own),
                _ => return Ok(Some(StreamedRow::Unread(xid))),
            },
        };
        let body = Body::Parts(Parts {
            source,
            op: Op::of_letter(letter),
            truncated: letter.is_some_and(|letter| letter.is_ascii_uppercase()),
            left: left.map(i32::unsigned_abs),
            body: of_other,
            user: user.into(),
            fields,
            asynchronous: row
                .bytes("asynchronous")?
                .is_some_and(|value| **value == [1]),
        });
        let xid_of_row = Some(xid);
        let row = ChunkRow {
            id,
            xid: xid_of_row,
            body,
        };
        Ok(Some(StreamedRow::Event(xid, row)))
    }
}

/// The values of a row by the names of their columns.
struct Row<'a> {
    columns: &'a Columns,
    values: &'a [Value],
}

impl<'a> Row<'a> {
    /// The binary form; `None` for null.
    fn bytes(&self, name: &'static str) -> Result<Option<&'a Bytes>, Unreadable> {
        let place = self.columns.0.get(name).copied();
        match place.and_then(|place| self.values.get(place)) {
            Some(Value::Null) => Ok(None),
            Some(Value::Binary(bytes)) => Ok(Some(bytes)),
            _ => Err(Unreadable(name)),
        }
    }

    /// A whole number of any length.
    fn number(&self, name: &'static str) -> Result<Option<i64>, Unreadable> {
        let Some(bytes) = self.bytes(name)? else {
            return Ok(None);
        };
        let bytes: &[u8] = bytes;
        let number = bytes
            .try_into()
            .map(i64::from_be_bytes)
            .or_else(|_| bytes.try_into().map(i32::from_be_bytes).map(i64::from))
            .or_else(|_| bytes.try_into().map(i16::from_be_bytes).map(i64::from))
            .map_err(|_| Unreadable(name))?;
        Ok(Some(number))
    }
}

fn text(name: &'static str, bytes: &Bytes) -> Result<String, Unreadable> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 12] = [
        "slot",
        "id",
        "xid",
        "user_key",
        "kind",
        "payload",
        "source",
        "op",
        "fields",
        "asynchronous",
        "bytes",
        "body",
    ];

    fn rows() -> Rows {
        let mut rows = Rows::default();
        rows.describe(Relation {
            id: 7,
            schema: "realtime".to_owned(),
            name: "log".to_owned(),
            columns: COLUMNS.map(str::to_owned).into(),
        });
        rows
    }

    fn values(given: &[(&str, &[u8])]) -> Vec<Value> {
        let value = |name: &str| given.iter().find(|(of, _)| *of == name);
        COLUMNS
            .iter()
            .map(|name| {
                value(name).map_or(Value::Null, |(_, bytes)| {
                    Value::Binary(Bytes::copy_from_slice(bytes))
                })
            })
            .collect()
    }

    /// The binary form of an array of texts.
    fn array(texts: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25];
        bytes.extend(u32::try_from(texts.len()).unwrap().to_be_bytes());
        bytes.extend(1_u32.to_be_bytes());
        for text in texts {
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    fn event(
        id: i64,
        fields: Option<&[&str]>,
        bytes: Option<i32>,
        body: Option<i64>,
    ) -> Vec<Value> {
        let (id, xid) = (id.to_be_bytes(), 9_i64.to_be_bytes());
        let array = fields.map(array);
        let (bytes, body) = (bytes.map(i32::to_be_bytes), body.map(i64::to_be_bytes));
        let mut given: Vec<(&str, &[u8])> = vec![
            ("id", &id),
            ("xid", &xid),
            ("user_key", &[1; 16]),
            ("source", &[0, 1]),
            ("op", b"i"),
            ("asynchronous", &[0]),
        ];
        given.extend(array.as_deref().map(|array| ("fields", array)));
        given.extend(bytes.as_ref().map(|bytes| ("bytes", &bytes[..])));
        given.extend(body.as_ref().map(|body| ("body", &body[..])));
        values(&given)
    }

    fn fields(row: Option<StreamedRow>) -> Vec<String> {
        let Some(StreamedRow::Event(
            _,
            ChunkRow {
                body: Body::Parts(parts),
                ..
            },
        )) = row
        else {
            panic!("no event: {row:?}");
        };
        let all =
            (1..=parts.fields.count()).map(|number| parts.fields.get(number).unwrap().to_owned());
        all.collect()
    }

    #[test]
    fn a_row_has_its_own_values_or_those_of_the_row_before() {
        let mut rows = rows();
        let own = event(1, Some(&["a", "b"]), None, None);
        assert_eq!(fields(rows.read(7, &own).unwrap()), ["a", "b"]);
        let kept = event(2, Some(&["a", "long"]), Some(2_000), None);
        assert_eq!(fields(rows.read(7, &kept).unwrap()), ["a", "long"]);
        let other = event(3, Some(&["c"]), Some(2_000), Some(2));
        assert_eq!(fields(rows.read(7, &other).unwrap()), ["c", "long"]);
        let same = event(4, None, Some(2_000), Some(2));
        assert_eq!(fields(rows.read(7, &same).unwrap()), ["a", "long"]);
        // Nobody knows the values of another transaction's row.
        rows.begin();
        let unread = rows.read(7, &same).unwrap();
        assert!(matches!(unread, Some(StreamedRow::Unread(_))), "{unread:?}");
    }

    #[test]
    fn the_values_of_a_large_event_are_left_in_the_log() {
        let mut rows = rows();
        let large = event(1, Some(&["a", "long"]), Some(9_000), None);
        assert!(fields(rows.read(7, &large).unwrap()).is_empty());
        let other = event(2, Some(&["c"]), Some(9_000), Some(1));
        assert_eq!(fields(rows.read(7, &other).unwrap()), ["c"]);
    }

    #[test]
    fn a_barrier_is_no_event_and_other_tables_are_nothing() {
        let mut rows = rows();
        let (id, xid) = (0_i64.to_be_bytes(), 9_i64.to_be_bytes());
        let given: [(&str, &[u8]); 4] = [
            ("id", &id),
            ("xid", &xid),
            ("kind", b"barrier"),
            ("payload", b"barrier 1"),
        ];
        let barrier = rows.read(7, &values(&given)).unwrap();
        assert!(matches!(barrier, Some(StreamedRow::Barrier(_, text)) if text == "barrier 1"));
        assert!(rows.read(8, &values(&given)).unwrap().is_none());
        // A publication with a list of columns.
        assert!(rows.read(7, &values(&given)[..3]).is_err());
    }
}
