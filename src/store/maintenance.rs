//! The log's ring of partitions, and PostgreSQL's notification queue.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::types::PgInterval;

use super::error::is_undefined;

/// What [`super::Log::rotate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The next partition is open.
    Rotated,
    /// Nothing: the open partition is young, or another server is at it.
    NotDue,
    /// Nothing: no partition is free, and the open one goes on growing.
    Full,
}

fn interval(retention: Duration) -> Result<PgInterval, sqlx::Error> {
    PgInterval::try_from(retention).map_err(sqlx::Error::Encode)
}

/// What [`super::Log::maintain`] does, on this pool.
pub(super) async fn maintain(pool: &PgPool, retention: Duration) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT realtime.maintain($1)")
        .bind(interval(retention)?)
        .fetch_one(pool)
        .await
}

/// What [`super::Log::rotate`] does, on this pool.
pub(super) async fn rotate(pool: &PgPool, retention: Duration) -> Result<Rotation, sqlx::Error> {
    let said: String =
        sqlx::query_scalar("SELECT realtime.rotate(greatest($1 / 8, interval '1 second'))")
            .bind(interval(retention)?)
            .fetch_one(pool)
            .await?;
    Ok(match said.as_str() {
        "rotated" => {
            let forgetting = sqlx::query("SELECT realtime.forget_sources()");
            // The schema before migration 8 has no such function.
            if let Err(error) = forgetting.execute(pool).await
                && !is_undefined(&error)
            {
                tracing::warn!(
                    event = "sources_not_forgotten",
                    %error,
                    advice = "retired sources stay in realtime.sources until the log is rotated again"
                );
            }
            Rotation::Rotated
        }
        "full" => Rotation::Full,
        _ => Rotation::NotDue,
    })
}

/// What [`super::Log::expired`] does, on this pool.
pub(super) async fn expired(
    pool: &PgPool,
    retention: Duration,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT name::text FROM realtime.expired($1) AS name")
        .bind(interval(retention)?)
        .fetch_all(pool)
        .await
}

/// What [`super::Log::forget`] does, on this pool.
pub(super) async fn forget(pool: &PgPool, partition: &str) -> Result<(), sqlx::Error> {
    // A role may have another default, which the function refuses.
    let mut transaction = pool
        .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await?;
    sqlx::query("SELECT realtime.forget($1::name)")
        .bind(partition)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// The share of PostgreSQL's notification queue that is in use, 0 to 1.
pub(super) async fn notification_queue_usage(pool: &PgPool) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_notification_queue_usage()")
        .fetch_one(pool)
        .await
}
