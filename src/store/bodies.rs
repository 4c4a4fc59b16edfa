//! The bodies of large events: read when a connection writes the event, once for all who are sent it at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row as _;
use tokio::sync::OnceCell;

use super::database::Database;
use super::deadline::within_deadline;
use super::log_row::{Body, beginning_of, compose};
use super::reading::{ID, Reading, STORED, read_log};
use super::sources;
use crate::protocol::{Cursor, Epoch, InLog, LARGE_BYTES_MAX, Layout, Notification, UserKey};

/// Bodies that are kept for the next connection that asks.
const RECENT_MAX: usize = 8;
/// Their memory, in bytes.
pub const RECENT_BYTES_MAX: usize = RECENT_MAX * LARGE_BYTES_MAX;

/// The body of the row `$2`, and where it was read. Of an event that is too long, the values of its key, whose numbers are
/// `$3`; null is all.
const BODY: &str = read_log!(
    "$1",
    " FROM reading LEFT JOIN LATERAL (
         SELECT id, CASE WHEN is_composed THEN NULL ELSE payload END AS payload, source, op,
                CASE WHEN $3::integer[] IS NULL THEN fields
                ELSE ARRAY(SELECT CASE WHEN number = ANY ($3::integer[]) THEN value END
                           FROM unnest(fields) WITH ORDINALITY AS listed (value, number) ORDER BY number)
                END AS fields, asynchronous, user_id, NULL::integer AS bytes, NULL::bigint AS body
         FROM realtime.events WHERE known AND id = $2
     ) AS events ON true"
);

/// A row's number begins anew in another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    epoch: Epoch,
    body: i64,
    is_whole: bool,
}

type Slot = Arc<OnceCell<Body>>;

/// The bodies that were asked for last. Cheap to clone: every clone is the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Bodies(Arc<Mutex<VecDeque<(Key, Slot)>>>);

impl Bodies {
    /// The JSON of this user's event, without its closing brace, at most as long as clients are sent it. `beginning` is
    /// what the queues hold of it. `cursor` is one of the history that the event is of.
    ///
    /// # Errors
    /// The database's; [`sqlx::Error::RowNotFound`] where the event is no longer in the log of that history.
    pub(super) async fn open_text(
        &self,
        database: &Database,
        (user, id, in_log): (UserKey, i64, InLog),
        beginning: &str,
        cursor: &Cursor,
    ) -> Result<String, sqlx::Error> {
        let kinds = database.kinds();
        let bytes_max = kinds.event_bytes_max();
        let mut layout = None;
        if let Some(number) = in_log.source {
            let (_, found) = kinds.source(number).ok_or(sqlx::Error::RowNotFound)?;
            layout = Some(found);
        }
        let is_short = in_log.truncated || in_log.bytes as usize > bytes_max;
        let key = Key {
            epoch: cursor.epoch,
            body: in_log.body,
            is_whole: !is_short,
        };
        let slot = self.slot(key);
        let layout = layout.as_deref().map(|layout| layout.of(in_log.op));
        let read = slot.get_or_try_init(|| read(database, key, cursor, layout));
        match (read.await?, layout) {
            (Body::Parts(parts), Some(layout)) => {
                if parts.fields.count() != layout.fields() {
                    sources::read_kinds(&database.requests(), &kinds).await?;
                    return Err(sqlx::Error::RowNotFound);
                }
                let (mut text, event) = (String::new(), (id, user, in_log.op));
                let mut own_user = None;
                if in_log.body != id && layout.user_field().is_some() {
                    // The row of the body has another user's id, which this client is not to see.
                    let written = layout.truncated().unwrap_or(layout);
                    let user = written.user_json(beginning, event);
                    own_user = Some(user.ok_or(sqlx::Error::RowNotFound)?);
                }
                compose(
                    &mut text,
                    layout,
                    event,
                    (&parts.fields, own_user),
                    is_short,
                    bytes_max,
                );
                Ok(text)
            }
            (Body::Json(json), None) if json.len() <= bytes_max => {
                let notification = Notification::parse(json);
                let notification =
                    notification.map_err(|error| sqlx::Error::Decode(error.into()))?;
                Ok(notification.open_text.to_owned())
            }
            (Body::Json(json), None) => Ok(beginning_of(json, user, id, bytes_max)),
            _ => Err(sqlx::Error::RowNotFound),
        }
    }

    /// Where this body is, or will be. Those who wait for one that was given up meanwhile still have it.
    fn slot(&self, key: Key) -> Slot {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = recent.iter().find(|(known, _)| *known == key) {
            return Arc::clone(slot);
        }
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        let slot = Slot::default();
        recent.push_back((key, Arc::clone(&slot)));
        slot
    }
}

async fn read(
    database: &Database,
    key: Key,
    cursor: &Cursor,
    layout: Option<&Layout>,
) -> Result<Body, sqlx::Error> {
    let of_key = layout.filter(|_| !key.is_whole).map(|layout| {
        let numbers = layout.truncated().unwrap_or(layout).numbers();
        let numbers = numbers.filter_map(|number| i32::try_from(number).ok());
        numbers.collect::<Vec<_>>()
    });
    let query = sqlx::query(BODY)
        .bind(cursor.snapshot.to_string())
        .bind(key.body)
        .bind(of_key);
    let pool = database.requests();
    let row = within_deadline(query.fetch_one(&pool)).await?;
    let is_same = Reading::of_row(&row)?.cursor.epoch == key.epoch;
    let id: Option<i64> = row.try_get(ID)?;
    let body = id.map(|_| Body::of_columns(&row, STORED)).transpose()?;
    body.flatten()
        .filter(|_| is_same)
        .ok_or(sqlx::Error::RowNotFound)
}
