//! Look-ups in the application's tables `devices` and `users`.

use uuid::Uuid;

use super::database::Database;
use super::error::is_undefined_table;

/// The application's devices and users. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Devices {
    database: Database,
}

impl Devices {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    /// The devices, as (id, user), that have one of these texts as identity key; first `device_id`, then
    /// those of `user_id`. LIMIT 2: a second row means that the key is ambiguous.
    pub(crate) async fn with_key(
        &self,
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
        .fetch_all(&self.database.identity())
        .await
    }

    /// Whether the user has this device.
    pub(crate) async fn exists(&self, device_id: Uuid, user_id: Uuid) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM public.devices WHERE id = $1 AND user_id = $2)",
        )
        .bind(device_id)
        .bind(user_id)
        .fetch_one(&self.database.identity())
        .await
    }

    /// Those of these devices that exist, as (id, user).
    pub(crate) async fn existing(
        &self,
        device_ids: &[Uuid],
    ) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
        sqlx::query_as("SELECT id, user_id FROM public.devices WHERE id = ANY($1)")
            .bind(device_ids)
            .fetch_all(&self.database.identity())
            .await
    }

    /// Those of these users that exist; all of them where the application has no table of users.
    pub(crate) async fn existing_users(
        &self,
        user_ids: Vec<Uuid>,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let found = sqlx::query_scalar("SELECT id FROM public.users WHERE id = ANY($1)")
            .bind(&user_ids)
            .fetch_all(&self.database.identity())
            .await;
        match found {
            Err(error) if is_undefined_table(&error) => Ok(user_ids),
            found => found,
        }
    }

    /// Whether this user exists; true where the application has no table of users.
    pub(crate) async fn user_exists(&self, user_id: Uuid) -> Result<bool, sqlx::Error> {
        let found = sqlx::query_scalar("SELECT EXISTS (SELECT FROM public.users WHERE id = $1)")
            .bind(user_id)
            .fetch_one(&self.database.identity())
            .await;
        match found {
            Err(error) if is_undefined_table(&error) => Ok(true),
            found => found,
        }
    }
}
