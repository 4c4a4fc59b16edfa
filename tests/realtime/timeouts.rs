//! Queries that hang. Each is given up after a time of its own, while the table that it waits for is still
//! locked.

use hushnet_realtime::config::{AuthMode, Ingest};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Database, Server, add_user, execute, insert_message, until};

/// A lock that no read of the table gets past.
struct Lock(PgConnection);

impl Lock {
    async fn of(database: &Database, table: &str) -> Self {
        let mut connection = database.connect().await;
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        execute(&mut connection, &lock).await;
        Self(connection)
    }

    async fn release(self) {
        self.0.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_read_of_state_that_hangs_is_answered_with_503() {
    let server = Server::start().await;
    let path = format!("/messages/pending/{}", Uuid::new_v4());
    let lock = Lock::of(server.database(), "messages").await;
    let response = server.get(&path).await;
    assert_eq!(response.status, 503, "{}", response.body);
    assert_eq!(response.json()["error"]["code"], "database_unavailable");
    lock.release().await;
    assert_eq!(server.get(&path).await.status, 200);
}

#[tokio::test]
async fn a_lookup_of_a_device_that_hangs_is_answered_with_503() {
    let server = Server::start_with(|config| config.identity.auth = AuthMode::Device).await;
    let alice = add_user(&server.db().await).await;
    let signed = crate::identity::signed_by_a_device_of(&server, &alice).await;
    let request = format!(
        "GET /users/{}/devices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n",
        alice.id, signed
    );
    let lock = Lock::of(server.database(), "devices").await;
    let response = server.request(&request).await;
    assert_eq!(response.status, 503, "{}", response.body);
    assert_eq!(response.json()["error"]["code"], "identity_unavailable");
    lock.release().await;
}

/// The client keeps its cursor and may come back: the close code says so.
#[tokio::test]
async fn a_replay_that_hangs_closes_the_client_with_1013() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let alice = add_user(&db).await;
    let cursor: String = sqlx::query_scalar("SELECT realtime.cursor()")
        .fetch_one(&db)
        .await
        .unwrap();
    insert_message(&db, None, &alice, &alice).await;
    // The cursor is older than everything in this server's replay buffer: the replay is from the log.
    let server = Server::start_on(database, |_| {}).await;
    let path = format!("/ws?user_id={}&since={cursor}", alice.id);
    let lock = Lock::of(server.database(), "realtime.events").await;
    let mut client = server.connect_v1(&path).await;
    assert_eq!(client.close_code().await, 1013);
    lock.release().await;
    let mut client = server.connect_v1(&path).await;
    assert_eq!(client.next_json().await["resumed"], true);
}

/// Barriers come back all the while, so that nothing else shows that events do not come.
#[tokio::test]
async fn a_read_of_the_log_that_hangs_turns_readyz_red_and_is_tried_again() {
    let server = Server::start_with(|config| {
        config.ingest = Some(Ingest::Tail);
        config.barrier_interval_ms = 100;
    })
    .await;
    let db = server.db().await;
    let alice = add_user(&db).await;
    let lock = Lock::of(server.database(), "realtime.events").await;
    until("/readyz says why", async || {
        let ready = server.get("/readyz").await;
        let reason = ready.json()["reasons"][0].clone();
        let detail = reason["detail"].as_str().unwrap_or_default();
        ready.status == 503
            && reason["code"] == "listener_disconnected"
            && detail.ends_with("lock timeout (55P03)")
    })
    .await;
    lock.release().await;
    let mut client = server.connect(alice.id).await;
    insert_message(&db, None, &alice, &alice).await;
    client.until_type("message").await;
    assert_eq!(server.get("/readyz").await.status, 200);
    let reconnects = server.metric("hushnet_listener_reconnects_total").await;
    assert!(reconnects < 1.0, "what had been read would be read again");
}
