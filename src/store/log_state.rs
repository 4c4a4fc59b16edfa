//! What the log says of itself: its present cursor, and how events reach the server.

use sqlx::PgPool;

use super::error::is_undefined_table;
use super::reading::parse;
use crate::config::{Ingest, UnknownIngest};
use crate::protocol::Cursor;

/// What the log says of itself.
#[derive(Debug)]
pub struct LogState {
    /// The present.
    pub cursor: Cursor,
    /// How events reach the server.
    pub ingest: Ingest,
}

/// What [`super::Log::state`] does, on this pool.
pub(super) async fn read(pool: &PgPool) -> Result<Option<LogState>, sqlx::Error> {
    let found = sqlx::query_as::<_, (bool, String, String)>(
        "SELECT realtime.claim_history(), realtime.cursor(), ingest FROM realtime.state",
    )
    .fetch_one(pool)
    .await;
    let (emptied, cursor, ingest) = match found {
        Ok(row) => row,
        Err(error) if is_undefined_table(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if emptied {
        tracing::warn!(
            event = "log_emptied",
            reason = "written by another database system"
        );
    }
    let ingest = ingest
        .parse()
        .map_err(|error: UnknownIngest| sqlx::Error::Decode(error.into()))?;
    Ok(Some(LogState {
        cursor: parse(&cursor)?,
        ingest,
    }))
}

pub(super) async fn set_ingest(pool: &PgPool, ingest: Ingest) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE realtime.state SET ingest = $1, ingest_since = pg_current_xact_id()
             WHERE ingest <> $1",
    )
    .bind(ingest.as_str())
    .execute(pool)
    .await
    .map(drop)
}
