//! The application beside which the service runs: HushNet's schema, its users and their messages.

use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::database::execute;

/// Creates HushNet's tables and HushNet's own triggers, and nothing of the service.
pub async fn create_schema(connection: &mut PgConnection) {
    for statements in [
        include_str!("../../../sql/hushnet/schema.sql"),
        include_str!("../../../sql/hushnet/triggers.sql"),
    ] {
        execute(connection, statements).await;
    }
}

/// A user with one device.
#[derive(Debug, Clone, Copy)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The device's id.
    pub device_id: Uuid,
}

/// Inserts a user with one device.
pub async fn add_user(pool: &PgPool) -> User {
    let name = Uuid::new_v4().to_string();
    let id = sqlx::query_scalar("INSERT INTO users (username) VALUES ($1) RETURNING id")
        .bind(name)
        .fetch_one(pool)
        .await
        .unwrap();
    User {
        id,
        device_id: add_device(pool, id).await,
    }
}

/// Inserts a device of a user.
pub async fn add_device(pool: &PgPool, user_id: Uuid) -> Uuid {
    sqlx::query_scalar(
        "INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, \
         signed_prekey_sig, one_time_prekeys) \
         VALUES ($1, gen_random_uuid()::text, '', '', '', '[]') RETURNING id",
    )
    .bind(user_id)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Inserts a chat of two users.
pub async fn add_chat(pool: &PgPool, a: &User, b: &User) -> Uuid {
    sqlx::query_scalar(
        "INSERT INTO chats (user_a, user_b) VALUES (least($1, $2), greatest($1, $2)) RETURNING id",
    )
    .bind(a.id)
    .bind(b.id)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Inserts a message row as the application does, in a transaction of its own or in the caller's.
pub async fn insert_message<'e>(
    executor: impl PgExecutor<'e>,
    chat_id: Option<Uuid>,
    from: &User,
    to: &User,
) {
    let inserted = try_insert_message(executor, chat_id, from, to).await;
    inserted.unwrap();
}

/// The same, where PostgreSQL may refuse it.
///
/// # Errors
/// The database's.
pub async fn try_insert_message<'e>(
    executor: impl PgExecutor<'e>,
    chat_id: Option<Uuid>,
    from: &User,
    to: &User,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id, \
         to_device_id, header, ciphertext) VALUES ('m', $1, $2, $3, $4, $5, '{}', 'c')",
    )
    .bind(chat_id)
    .bind(from.id)
    .bind(from.device_id)
    .bind(to.id)
    .bind(to.device_id)
    .execute(executor)
    .await?;
    Ok(())
}

/// Sends a notification that no trigger has made.
pub async fn notify(pool: &PgPool, channel: &str, payload: &str) {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(channel)
        .bind(payload)
        .execute(pool)
        .await
        .unwrap();
}
