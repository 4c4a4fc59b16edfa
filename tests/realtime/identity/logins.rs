//! Logins while the database is busy with replays.

use sqlx::{Connection, PgPool};

use super::life::{bearer, connect, offered};
use super::*;
use crate::support::{Client, Database, execute, until};

/// Fewer than there are replays.
const CONNECTIONS: u32 = 2;
const REPLAYS: usize = 8;

pub async fn sessions_that_wait(db: &PgPool) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'hushnet-realtime'
                         AND wait_event_type = 'Lock'";
    sqlx::query_scalar(waiting).fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn a_login_gets_its_hello_while_replays_hold_all_connections_for_requests() {
    let key = Key::secret();
    let database = Database::migrated().await;
    let db = database.pool().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let since: String = sqlx::query_scalar("SELECT realtime.cursor()")
        .fetch_one(&db)
        .await
        .unwrap();
    insert_message(&db, None, &alice, &alice).await;
    let server = Server::start_on(database.clone(), |config| {
        takes_tokens(config, &key);
        config.database_pool_size = CONNECTIONS;
    })
    .await;
    let login = async |user: &User, path: &str| -> Client {
        let mut headers = offered("hushnet.v1");
        headers.extend(bearer(&token(&key, &claims(user))));
        connect(&server, path, &headers).await
    };

    // No page is read before it is released.
    let mut lock = database.connect().await;
    let statement = "BEGIN; LOCK TABLE realtime.events IN ACCESS EXCLUSIVE MODE";
    execute(&mut lock, statement).await;
    let mut replays = Vec::new();
    for _ in 0..REPLAYS {
        replays.push(login(&alice, &format!("/ws?since={since}")).await);
    }
    let admin = database.admin_pool().await;
    until("replays hold every connection for requests", async || {
        sessions_that_wait(&admin).await >= i64::from(CONNECTIONS)
    })
    .await;

    let mut client = login(&bob, "/ws").await;
    let hello = client.next_json().await;
    assert_eq!(
        (&hello["type"], &hello["resumed"]),
        (&json!("hello"), &json!(false))
    );
    // One that comes back soon is served from memory.
    let cursor = hello["cursor"].as_str().unwrap();
    let mut back = login(&bob, &format!("/ws?since={cursor}")).await;
    assert_eq!(back.next_json().await["resumed"], true);
    lock.close().await.unwrap();
}
