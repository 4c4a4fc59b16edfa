//! When events were written, for the measurement of latency and for the page.

use sqlx::PgPool;
use uuid::Uuid;

use crate::protocol::UserKey;

/// An event of the log, and how to find it without reading much of the log.
#[derive(Debug, Clone, Copy)]
pub struct Logged {
    /// The user that it is for.
    pub user: UserKey,
    /// Its id.
    pub id: i64,
    /// A bound on its transaction from below.
    pub xmin: u64,
}

/// Looks up `wanted (user_id, id, xmin)`. Each event is found at once in the index by id. The schema before migration 4
/// has none: there the transactions since `xmin` are read, of the user if there is one.
macro_rules! look_up {
    ($wanted:literal) => {
        concat!(
            "SELECT found.id, extract(epoch FROM found.created_at)::float8
             FROM ",
            $wanted,
            " AS wanted (user_id, id, xmin),
                  LATERAL (SELECT to_regclass('realtime.events_id') IS NOT NULL AS by_id) AS log,
                  LATERAL (
                      SELECT id, created_at FROM realtime.events
                      WHERE by_id AND id = wanted.id
                        AND (wanted.user_id IS NULL OR user_id IS NOT DISTINCT FROM wanted.user_id)
                      UNION ALL
                      SELECT id, created_at FROM realtime.events
                      WHERE NOT by_id AND id = wanted.id AND xid >= wanted.xmin::xid8
                        AND user_id = wanted.user_id
                      UNION ALL
                      SELECT id, created_at FROM realtime.events
                      WHERE NOT by_id AND id = wanted.id AND xid >= wanted.xmin::xid8
                        AND wanted.user_id IS NULL
                  ) AS found"
        )
    };
}

/// What [`super::Log::creation_times`] does, on this pool.
pub(super) async fn of_all(
    pool: &PgPool,
    ids: &[i64],
    xmin: u64,
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    let look_up = look_up!("(SELECT NULL::uuid, unnest($1::bigint[]), $2::text)");
    sqlx::query_as(look_up)
        .bind(ids)
        .bind(xmin.to_string())
        .fetch_all(pool)
        .await
}

/// What [`super::Log::creation_times_of`] does, on this pool.
pub(super) async fn of_user(
    pool: &PgPool,
    user: UserKey,
    ids: &[i64],
    xmin: u64,
) -> Result<Vec<(i64, f64)>, sqlx::Error> {
    let look_up = look_up!("(SELECT $1::uuid, unnest($2::bigint[]), $3::text)");
    sqlx::query_as(look_up)
        .bind(user.uuid())
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
    let users: Vec<Uuid> = events.iter().map(|event| event.user.uuid()).collect();
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    let xmins: Vec<String> = events.iter().map(|event| event.xmin.to_string()).collect();
    sqlx::query_as(look_up!("unnest($1::uuid[], $2::bigint[], $3::text[])"))
        .bind(users)
        .bind(ids)
        .bind(xmins)
        .fetch_all(pool)
        .await
}
