//! What the log says of itself: its history, its present cursor, and how events reach the server.

use sqlx::PgPool;

use super::control;
use super::error::{
    is_forbidden, is_gone, is_undefined, is_undefined_function, is_undefined_table,
    is_without_schema,
};
use super::reading::parse;
use crate::config::{Ingest, UnknownIngest};
use crate::protocol::{Cursor, Epoch};

/// What the log says of itself.
#[derive(Debug)]
pub struct LogState {
    /// The present. What it sees is on disk.
    pub cursor: Cursor,
    /// How events reach the server.
    pub ingest: Ingest,
    /// Whether the schema is that of the release before, as it also is while `migrate up` is at work.
    pub is_before: bool,
}

/// What [`super::Log::state`] does, on this pool.
pub(super) async fn read(pool: &PgPool) -> Result<Option<LogState>, sqlx::Error> {
    let emptied = match begin_history(pool).await {
        // The schema before migration 5.
        Err(error) if is_undefined_function(&error) => return read_before(pool).await,
        Err(error) if is_without_schema(&error) => return Ok(None),
        // An empty schema that the role has no right on.
        Err(error) if is_forbidden(&error) && !control::has_log(pool).await? => return Ok(None),
        emptied => emptied?,
    };
    if emptied {
        tracing::warn!(
            event = "history_began",
            advice = "the log was of another database, or of a table that was replaced, and has been emptied; every \
                      client fetches its state anew"
        );
    }
    let read = sqlx::query_as(
        // Before migration 11 the state has no such column.
        "SELECT realtime.unflushed_cursor(),
                CASE to_jsonb(state)->>'streams' WHEN 'true' THEN 'wal' ELSE ingest END,
                realtime.is_flushed(pg_current_wal_insert_lsn())
         FROM realtime.state",
    );
    let (cursor, ingest, flushed): (String, String, bool) = read.fetch_one(pool).await?;
    if !flushed {
        flush(pool).await?;
    }
    LogState::parse(&cursor, &ingest, false).map(Some)
}

/// What [`super::Log::present`] does, on this pool.
pub(super) async fn present(pool: &PgPool) -> Result<Cursor, sqlx::Error> {
    let read = sqlx::query_scalar("SELECT realtime.unflushed_cursor()");
    let cursor: String = read.fetch_one(pool).await?;
    parse(&cursor)
}

async fn begin_history(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT realtime.begin_history()")
        .fetch_one(pool)
        .await
}

/// The same in the schema before migration 5.
async fn read_before(pool: &PgPool) -> Result<Option<LogState>, sqlx::Error> {
    let read = sqlx::query_as(
        "SELECT realtime.claim_history(), realtime.cursor(), ingest FROM realtime.state",
    );
    let (_, cursor, ingest): (bool, String, String) = match read.fetch_one(pool).await {
        Err(error) if is_undefined_table(&error) => return Ok(None),
        row => row?,
    };
    LogState::parse(&cursor, &ingest, true).map(Some)
}

impl LogState {
    fn parse(cursor: &str, ingest: &str, is_before: bool) -> Result<Self, sqlx::Error> {
        let ingest = ingest
            .parse()
            .map_err(|error: UnknownIngest| sqlx::Error::Decode(error.into()))?;
        Ok(Self {
            cursor: parse(cursor)?,
            ingest,
            is_before,
        })
    }
}

/// What [`super::Log::may_propose_wal`] does, on this pool.
pub(super) async fn may_propose_wal(pool: &PgPool) -> Result<bool, sqlx::Error> {
    // Before migration 11 the state has no such columns: nothing can be proposed.
    let ask = sqlx::query_scalar(
        "SELECT coalesce(to_jsonb(state)->>'streams' = 'false' AND to_jsonb(state)->>'ingest_chosen' = 'false', false)
         FROM realtime.state",
    );
    match ask.fetch_optional(pool).await {
        Err(error) if is_gone(&error) => Ok(false),
        may => Ok(may?.unwrap_or(false)),
    }
}

/// What [`super::Log::flush`] does, on this pool.
pub(super) async fn flush(pool: &PgPool) -> Result<(), sqlx::Error> {
    match sqlx::query("SELECT realtime.flush()").execute(pool).await {
        // The schema before migration 5, or a log that has gone, whose positions are worth nothing.
        Err(error) if is_gone(&error) => Ok(()),
        flushed => flushed.map(drop),
    }
}

/// What [`super::Log::renew_history`] does, on this pool.
pub(super) async fn renew_history(
    pool: &PgPool,
    former: Option<Epoch>,
) -> Result<Option<u64>, sqlx::Error> {
    let former = former.map(|epoch| i64::try_from(epoch.history).unwrap_or(i64::MAX));
    let renewed = sqlx::query_scalar::<_, Option<i64>>("SELECT realtime.renew_history($1)")
        .bind(former)
        .fetch_one(pool)
        .await;
    match renewed {
        // The schema before migration 5, or none.
        Err(error) if is_undefined(&error) => Ok(None),
        renewed => Ok(renewed?.map(i64::unsigned_abs)),
    }
}

/// What [`super::Log::set_ingest`] does, on this pool.
pub(super) async fn set_ingest(pool: &PgPool, ingest: Ingest) -> Result<(), sqlx::Error> {
    let set = sqlx::query("SELECT realtime.set_ingest($1)").bind(ingest.as_str());
    match set.execute(pool).await {
        Err(error) if is_undefined_function(&error) => set_ingest_before(pool, ingest).await,
        set => set.map(drop),
    }
}

/// What [`super::Log::propose_ingest`] does, on this pool. In the schema before migration 11 nothing is proposed.
pub(super) async fn propose_ingest(pool: &PgPool, ingest: Ingest) -> Result<(), sqlx::Error> {
    let propose = sqlx::query("SELECT realtime.propose_ingest($1)").bind(ingest.as_str());
    match propose.execute(pool).await {
        Err(error) if is_undefined_function(&error) => Ok(()),
        proposed => proposed.map(drop),
    }
}

/// The same in the schema before migration 9.
async fn set_ingest_before(pool: &PgPool, ingest: Ingest) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE realtime.state SET ingest = $1, ingest_since = pg_current_xact_id()
             WHERE ingest <> $1",
    )
    .bind(ingest.as_str())
    .execute(pool)
    .await
    .map(drop)
}
