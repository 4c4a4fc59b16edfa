//! Look-ups of the application's devices and users.
//!
//! The service's role need not read the tables: functions of schema `realtime` look up with their owner's rights. In the
//! schema before migration 6, and without the schema, the tables are read.

use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{FromRow, Postgres};
use uuid::Uuid;

use super::database::Database;
use super::error::is_undefined_table;
use super::known::Known;

const WITH_KEY: [&str; 2] = [
    "SELECT device_id, owner_id FROM realtime.devices_with_key($1, $2, $3)",
    "SELECT id, user_id FROM public.devices WHERE identity_pubkey = ANY($1)
     ORDER BY id IS NOT DISTINCT FROM $3 DESC, user_id IS NOT DISTINCT FROM $2 DESC LIMIT 2",
];

const EXISTING: [&str; 2] = [
    "SELECT device_id, owner_id FROM realtime.existing_devices($1)",
    "SELECT id, user_id FROM public.devices WHERE id = ANY($1)",
];

const EXISTING_USERS: [&str; 2] = [
    "SELECT id FROM realtime.existing_users($1) AS id",
    "SELECT id FROM public.users WHERE id = ANY($1)",
];

/// The application's devices and users. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Devices {
    database: Database,
    known: Known,
}

type Query<Row> = QueryAs<'static, Postgres, Row, PgArguments>;

impl Devices {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            known: Known::default(),
        }
    }

    /// The rows of the first statement that the database knows, with what `bind` binds.
    async fn rows<Row>(
        &self,
        statements: &[&'static str],
        bind: impl Fn(Query<Row>) -> Query<Row> + Send + Sync,
    ) -> Result<Vec<Row>, sqlx::Error>
    where
        Row: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        let pool = self.database.identity();
        let mut attempts = self.known.attempts(statements);
        while let Some(statement) = attempts.next() {
            let answer = bind(sqlx::query_as(statement)).fetch_all(&pool).await;
            if let Some(answer) = attempts.take(answer) {
                return answer;
            }
        }
        Err(attempts.refused())
    }

    /// The devices, as (id, user), that have one of these texts as identity key; first `device_id`, then
    /// those of `user_id`. LIMIT 2: a second row means that the key is ambiguous.
    pub(crate) async fn with_key(
        &self,
        key_texts: &[String],
        user_id: Option<Uuid>,
        device_id: Option<Uuid>,
    ) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
        self.rows(&WITH_KEY, |query| {
            query.bind(key_texts.to_vec()).bind(user_id).bind(device_id)
        })
        .await
    }

    /// Whether the user has this device.
    pub(crate) async fn exists(&self, device_id: Uuid, user_id: Uuid) -> Result<bool, sqlx::Error> {
        let found = self.existing(&[device_id]).await?;
        Ok(found.contains(&(device_id, user_id)))
    }

    /// Those of these devices that exist, as (id, user).
    pub(crate) async fn existing(
        &self,
        device_ids: &[Uuid],
    ) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
        self.rows(&EXISTING, |query| query.bind(device_ids.to_vec()))
            .await
    }

    /// Those of these users that exist; all of them where the application has no table of users.
    pub(crate) async fn existing_users(
        &self,
        user_ids: Vec<Uuid>,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let bind = |query: Query<(Uuid,)>| query.bind(user_ids.clone());
        match self.rows(&EXISTING_USERS, bind).await {
            Err(error) if is_undefined_table(&error) => Ok(user_ids),
            found => Ok(found?.into_iter().map(|(id,)| id).collect()),
        }
    }

    /// Whether this user exists; true where the application has no table of users.
    pub(crate) async fn user_exists(&self, user_id: Uuid) -> Result<bool, sqlx::Error> {
        let found = self.existing_users(vec![user_id]).await?;
        Ok(found.contains(&user_id))
    }
}
