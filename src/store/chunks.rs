//! The log for the listener: all users' events after a position, in one snapshot, chunk by chunk.

use futures_util::stream::{BoxStream, Fuse};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::postgres::PgRow;
use sqlx::{Executor, FromRow, PgPool};

use super::reading::{Reading, read_log};
use crate::protocol::Snapshot;

/// Events in one chunk.
const CHUNK_EVENTS: usize = super::user_page::PAGE_EVENTS;

/// Some of all users' events; all chunks of one read are of one snapshot.
#[derive(Debug)]
pub struct Chunk {
    /// Where it was read.
    pub reading: Reading,
    /// Ids and payloads, at most a page.
    pub rows: Vec<(i64, String)>,
}

/// A row: the reading's columns, and the event's id and payload. A read without events has one row that
/// has neither.
type Row = (String, String, bool, bool, Option<i64>, Option<String>);

/// A read of the log that is under way. It goes on while [`Chunks::next`] is awaited; dropping it ends
/// the read.
pub struct Chunks {
    rows: Fuse<BoxStream<'static, Result<PgRow, sqlx::Error>>>,
    chunk: Option<Chunk>,
}

impl Chunks {
    pub(super) fn begin(pool: &PgPool, from: &Snapshot) -> Self {
        let statement = sqlx::query(read_log!(
            "$1",
            " FROM reading LEFT JOIN LATERAL (
                 SELECT id, payload FROM realtime.events
                 WHERE known AND xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                 UNION ALL
                 SELECT id, payload FROM realtime.events
                 WHERE known AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
             ) AS events ON true
             ORDER BY id"
        ))
        .bind(from.to_string());
        Self {
            rows: pool.fetch(statement).fuse(),
            chunk: None,
        }
    }

    /// The next chunk; `None` after the last. The first comes also when there is no event.
    /// Cancel-safe: rows of a chunk that is not full are kept.
    ///
    /// # Errors
    /// The database's.
    pub async fn next(&mut self) -> Result<Option<Chunk>, sqlx::Error> {
        while let Some(row) = self.rows.try_next().await? {
            let (epoch, snapshot, retained, known, id, payload) = Row::from_row(&row)?;
            let chunk = match &mut self.chunk {
                Some(chunk) => chunk,
                None => self.chunk.insert(Chunk {
                    reading: Reading::new(&epoch, &snapshot, retained, known)?,
                    rows: Vec::new(),
                }),
            };
            chunk.rows.extend(id.zip(payload));
            if chunk.rows.len() >= CHUNK_EVENTS {
                break;
            }
        }
        Ok(self.chunk.take())
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}
