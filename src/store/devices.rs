//! What is asked of the application's tables `devices` and `users`.

use sqlx::PgPool;
use uuid::Uuid;

use crate::store::is_undefined_table;

/// The devices, as (id, user), that have one of these texts as identity key, this one or this user's
/// first; two at most, since a second says all.
pub(crate) async fn with_key(
    pool: &PgPool,
    key_texts: &[String],
    user_id: Option<Uuid>,
    device_id: Option<Uuid>,
) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, user_id FROM public.devices WHERE identity_pubkey = ANY($1)
         ORDER BY id IS NOT DISTINCT FROM $3 DESC, user_id IS NOT DISTINCT FROM $2 DESC LIMIT 2",
    )
    .bind(key_texts)
    .bind(user_id)
    .bind(device_id)
    .fetch_all(pool)
    .await
}

/// Whether the user has this device.
pub(crate) async fn exists(
    pool: &PgPool,
    device_id: Uuid,
    user_id: Uuid,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM public.devices WHERE id = $1 AND user_id = $2)")
        .bind(device_id)
        .bind(user_id)
        .fetch_one(pool)
        .await
}

/// Whether there is this user; also where the application has no table of them.
pub(crate) async fn user_exists(pool: &PgPool, user_id: Uuid) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM public.users WHERE id = $1)")
        .bind(user_id)
        .fetch_one(pool)
        .await;
    match found {
        Err(error) if is_undefined_table(&error) => Ok(true),
        found => found,
    }
}
