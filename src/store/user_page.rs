//! The log for one user's replay, page by page.

use sqlx::PgPool;
use uuid::Uuid;

use super::reading::{LogRow, Reading, parse_row, read_log};
use crate::protocol::{Signal, Snapshot};

/// Events in one page.
pub const PAGE_EVENTS: usize = 1_000;
/// The text of a page's events without the last one: a page has at least one event, however long.
pub const PAGE_BYTES_MAX: usize = 128 * 1024;

/// Some of one user's events, read in one snapshot.
#[derive(Debug)]
pub struct Page {
    /// Where it was read.
    pub reading: Reading,
    /// Of a first page, how many events there were to read: its own and those after it.
    pub total: u64,
    /// In the order of their ids; at most [`PAGE_EVENTS`] and [`PAGE_BYTES_MAX`].
    pub signals: Vec<Signal>,
    /// Whether there are others after them.
    pub more: bool,
    /// The last event's id, where the next page begins; `None` for a page without events.
    pub last_id: Option<i64>,
}

/// A row: the reading's columns, the event's id and payload, how many events there are, and whether a table was
/// emptied.
type Row = (
    String,
    String,
    bool,
    bool,
    bool,
    Option<i64>,
    Option<String>,
    Option<i64>,
    bool,
);

/// What [`super::Log::read_user`] does, on this pool.
pub(super) async fn read(
    pool: &PgPool,
    user_id: Uuid,
    from: &Snapshot,
    last_id: i64,
    until: Option<&Snapshot>,
    with_revocations: bool,
) -> Result<Page, sqlx::Error> {
    let page_events = i64::try_from(PAGE_EVENTS).unwrap_or(i64::MAX - 1);
    let rows = sqlx::query_as::<_, Row>(read_log!(
        "$2",
        ", total,
             (SELECT $5::text IS NULL AND known AND (
                  EXISTS (SELECT FROM realtime.events
                          WHERE user_id IS NULL AND xid >= pg_snapshot_xmax($2::text::pg_snapshot))
                  OR EXISTS (SELECT FROM realtime.events
                             WHERE user_id IS NULL
                               AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($2::text::pg_snapshot))))
              )) AS truncated
             FROM reading LEFT JOIN LATERAL (
                 SELECT id, payload, total,
                        sum(octet_length(payload)) OVER (ORDER BY id) - octet_length(payload)
                        AS bytes_before
                 FROM (SELECT id, payload, count(*) OVER () AS total
                       FROM (SELECT id, payload
                             FROM (SELECT * FROM realtime.events
                                   WHERE retained AND known AND user_id = $1
                                     AND xid >= pg_snapshot_xmax($2::text::pg_snapshot)
                                   UNION ALL
                                   SELECT * FROM realtime.events
                                   WHERE retained AND known AND user_id = $1
                                     AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($2::text::pg_snapshot)))
                             ) AS unseen
                             WHERE id > $3
                               AND ($5::text IS NULL
                                    OR pg_visible_in_snapshot(xid, (SELECT $5::text::pg_snapshot)))
                               AND ($6 OR kind <> 'revocation')
                             ORDER BY id LIMIT $8) AS counted
                       ORDER BY id LIMIT $4) AS page
             ) AS events ON bytes_before < $7
             ORDER BY id"
    ))
    .bind(user_id)
    .bind(from.to_string())
    .bind(last_id)
    .bind(page_events)
    .bind(until.map(ToString::to_string))
    .bind(with_revocations)
    .bind(i64::try_from(PAGE_BYTES_MAX).unwrap_or(i64::MAX))
    // The first page counts all events. A later one only needs to know whether another page follows.
    .bind(until.map(|_| page_events + 1))
    .fetch_all(pool)
    .await?;
    let (epoch, snapshot, retained, known, flushed, _, _, total, truncated) =
        rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut reading = Reading::new(epoch, snapshot, *retained, *known, *flushed)?;
    // Later pages go on from a first page that was not truncated; what was emptied since comes live.
    reading.truncated = *truncated;
    let total = total.map_or(0, i64::unsigned_abs);
    let last_id = rows.last().and_then(|row| row.5);
    let more = total > rows.len() as u64;
    let signals = rows
        .into_iter()
        .filter_map(|row| match parse_row(row.5?, row.6.as_deref()?)? {
            LogRow::Notification(notification) => Some(Signal::new(notification, None, None)),
            LogRow::Truncation => None,
        })
        .collect();
    Ok(Page {
        reading,
        total,
        signals,
        more,
        last_id,
    })
}
