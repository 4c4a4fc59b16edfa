//! A server that streams, a user, and the user's client.

use hushnet_realtime::config::{Config, Ingest};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{
    Client, Database, Server, User, add_user, execute, insert_message, soon, until,
};

pub const STREAMING: &str = "hushnet_wal_streaming";

pub struct Scene {
    pub server: Server,
    pub db: PgPool,
    pub alice: User,
    pub client: Client,
    seen: Vec<i64>,
}

/// What makes a server stream.
pub fn streams(database: &Database) -> impl Fn(&mut Config) + 'static {
    let url = database.replication();
    move |config| {
        config.ingest = Some(Ingest::Wal);
        config.replication_url = Some(url.clone());
    }
}

impl Scene {
    /// The server streams when this returns.
    pub async fn set() -> Self {
        Self::set_on(Database::with_logical_wal().await, |_| {}).await
    }

    pub async fn set_on(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let scene = Self::unstreamed(database, change).await;
        scene.until_streaming().await;
        scene
    }

    /// The server may poll.
    pub async fn unstreamed(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let db = database.pool().await;
        Self::served(database, db, change).await
    }

    /// With these sessions of the application.
    pub async fn served(database: Database, db: PgPool, change: impl FnOnce(&mut Config)) -> Self {
        let alice = add_user(&db).await;
        let streams = streams(&database);
        let server = Server::start_on(database, |config| {
            streams(config);
            change(config);
        })
        .await;
        let path = format!("/ws?user_id={}", alice.id);
        let mut client = server.connect_v1(&path).await;
        client.until_type("hello").await;
        let seen = Vec::new();
        Self {
            server,
            db,
            alice,
            client,
            seen,
        }
    }

    pub async fn until_streaming(&self) {
        self.server.until_metric(STREAMING, 1.0).await;
    }

    pub async fn until_polling(&self) {
        until("the log is polled", async || {
            self.server.metric(STREAMING).await < 1.0
        })
        .await;
    }

    /// Writes an event and waits for it. None was missed or repeated before.
    pub async fn event(&mut self) {
        insert_message(&self.db, None, &self.alice, &self.alice).await;
        self.next_event().await;
    }

    pub async fn next_event(&mut self) -> Value {
        soon("the event", self.await_event()).await
    }

    async fn await_event(&mut self) -> Value {
        loop {
            let frame = self.client.next_json().await;
            assert_ne!(frame["type"], "reset", "{frame}");
            if frame["type"] == "message" {
                let id = frame["id"].as_i64().unwrap();
                assert!(!self.seen.contains(&id), "{id} came twice");
                self.seen.push(id);
                return frame;
            }
        }
    }

    pub async fn admin(&self, statements: &str) {
        execute(&mut self.server.database().admin().await, statements).await;
    }

    pub async fn ask<T>(&self, query: &str) -> T
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let mut admin = self.server.database().admin().await;
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut admin)
            .await
            .unwrap()
    }

    /// Waits until `/readyz` says that the server polls for this cause. Returns the detail.
    pub async fn until_cause(&self, cause: &str) -> String {
        let mut detail = String::new();
        until(&format!("/readyz says {cause}"), async || {
            let ready = self.server.get("/readyz").await;
            let body = ready.json();
            let reasons = body["reasons"].as_array().unwrap();
            let found = reasons
                .iter()
                .find(|reason| reason["code"] == "not_streaming");
            detail = found.map_or_else(String::new, |found| found["detail"].to_string());
            ready.status == 200 && detail.contains(cause)
        })
        .await;
        let failures = format!("hushnet_wal_stream_failures_total{{cause=\"{cause}\"}}");
        assert!(self.server.metric(&failures).await >= 1.0);
        detail
    }
}
