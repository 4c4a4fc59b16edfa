//! After a reset each connection doubts its identity, all of them at once. They are looked up together.

use hushnet_testkit::client::ClientError;
use sqlx::{Executor, PgPool};

use super::life::{bearer, connect, offered};
use super::*;
use crate::support::{Client, soon, until};

const CLIENTS: usize = 60;

/// A view in the place of `devices` counts the statements that read it: its subquery is evaluated once for each.
const COUNT_LOOK_UPS: &str = "ALTER TABLE devices RENAME TO devices_rows;
    CREATE SEQUENCE look_ups;
    CREATE VIEW devices AS SELECT * FROM devices_rows WHERE (SELECT nextval('look_ups')) > 0";

async fn number(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

async fn until_reset(client: &mut Client) {
    while client.next_json().await["type"] != "reset" {}
}

/// Reads up to a message, or returns the code with which the connection was closed.
async fn until_message_or_close(client: &mut Client) -> Option<u16> {
    loop {
        match soon("a message", client.try_next_text()).await {
            Ok(text) => {
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                if frame["type"] == "message" {
                    return None;
                }
            }
            Err(ClientError::Closed(Some(close))) => return Some(close.code.into()),
            Err(error) => panic!("neither a message nor a close frame: {error}"),
        }
    }
}

/// The claims of a token for the user's device.
fn of_the_device(user: &User) -> serde_json::Value {
    let mut claims = claims(user);
    claims["device_id"] = user.device_id.to_string().into();
    claims
}

/// While the first look-up waits for a lock, the others gather. A client that comes meanwhile has the
/// other connection.
#[tokio::test]
async fn the_doubts_of_many_connections_are_looked_up_together() {
    let key = Key::secret();
    let server = Server::start_with(|config| {
        takes_tokens(config, &key);
        config.database_pool_size = 2;
    })
    .await;
    let pool = server.db().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let user = add_user(&pool).await;
        let mut headers = offered("other");
        headers.extend(bearer(&token(&key, &of_the_device(&user))));
        let mut client = connect(&server, "/ws", &headers).await;
        assert_eq!(client.next_json().await["type"], "hello");
        clients.push((user, client));
    }
    let owner = server.database().owner_pool().await;
    owner.execute(COUNT_LOOK_UPS).await.unwrap();
    let admin = server.database().admin_pool().await;

    let mut emptying = owner.begin().await.unwrap();
    emptying
        .execute("LOCK TABLE devices_rows IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    owner.execute("TRUNCATE messages CASCADE").await.unwrap();
    until("a look-up waits", async || waiting(&admin).await > 0).await;
    // Its token names no device: only the table of users is read.
    let mut headers = offered("other");
    headers.extend(bearer(&token(&key, &claims(&clients[0].0))));
    let mut newcomer = connect(&server, "/ws", &headers).await;
    assert_eq!(newcomer.next_json().await["type"], "hello");
    for (_, client) in &mut clients {
        until_reset(client).await;
    }
    assert!(waiting(&admin).await <= 1);

    emptying.commit().await.unwrap();
    let look_ups = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM look_ups";
    for (user, client) in &mut clients {
        insert_message(&pool, None, user, user).await;
        // 1013: the machine is so slow that the first look-up was given up.
        let went_on = until_message_or_close(client).await;
        assert!(went_on.is_none_or(|code| code == 1013), "{went_on:?}");
    }
    let look_ups = number(&owner, look_ups).await;
    assert!(look_ups <= 15, "{look_ups} for {CLIENTS} connections");
}

/// Sessions that wait for a lock to read the devices.
async fn waiting(pool: &PgPool) -> i64 {
    number(
        pool,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND wait_event_type = 'Lock' AND query LIKE '%realtime.existing_devices%'",
    )
    .await
}
