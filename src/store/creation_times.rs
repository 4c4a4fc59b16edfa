//! When events were written, for the measurement of latency and for the page.

use sqlx::PgPool;
use uuid::Uuid;

/// An event of the log, and how to find it without reading much of the log.
#[derive(Debug, Clone, Copy)]
pub struct Logged {
    /// The user that it is for.
    pub user_id: Uuid,
    /// Its id.
    pub id: i64,
    /// A bound on its transaction from below.
    pub xmin: u64,
}

/// What [`super::Log::creation_times`] does, on this pool.
pub(super) async fn of_all(
    pool: &PgPool,
    ids: &[i64],
    xmin: u64,
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events
             WHERE id = ANY($1) AND xid >= $2::text::xid8",
    )
    .bind(ids)
    .bind(xmin.to_string())
    .fetch_all(pool)
    .await
}

/// What [`super::Log::creation_times_of`] does, on this pool.
pub(super) async fn of_user(
    pool: &PgPool,
    user_id: Uuid,
    ids: &[i64],
    xmin: u64,
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, extract(epoch FROM created_at)::float8 FROM realtime.events
             WHERE user_id = $1 AND id = ANY($2) AND xid >= $3::text::xid8",
    )
    .bind(user_id)
    .bind(ids)
    .bind(xmin.to_string())
    .fetch_all(pool)
    .await
}

/// What [`super::Log::creation_times_of_each`] does, on this pool.
pub(super) async fn of_each(
    pool: &PgPool,
    events: &[Logged],
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    let users: Vec<Uuid> = events.iter().map(|event| event.user_id).collect();
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    let xmins: Vec<String> = events.iter().map(|event| event.xmin.to_string()).collect();
    // By the index that begins with the user: the transactions may be as old as the log.
    sqlx::query_as(
        "SELECT id, extract(epoch FROM created_at)::float8
             FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS wanted (user_id, id, xmin)
             JOIN realtime.events USING (user_id, id)
             WHERE xid >= xmin::xid8",
    )
    .bind(users)
    .bind(ids)
    .bind(xmins)
    .fetch_all(pool)
    .await
}
