//! TRUNCATE fires no trigger for its rows. One row of the log tells every client of it.

use hushnet_realtime::config::Ingest;

use crate::support::{Client, Server, User, add_user, execute, insert_message};

const EACH_INGEST: [Ingest; 3] = [Ingest::Notify, Ingest::Tail, Ingest::Adaptive];

async fn truncate(server: &Server, table: &str) {
    let mut owner = server.database().connect().await;
    execute(&mut owner, &format!("TRUNCATE {table} CASCADE")).await;
}

/// The next frame but those of `device` and `cursor`, which come at any time.
async fn next_frame(client: &mut Client) -> serde_json::Value {
    loop {
        let frame = client.next_json().await;
        if frame["type"] != "device" && frame["type"] != "cursor" {
            return frame;
        }
    }
}

async fn connect(server: &Server, user: &User, since: Option<&str>) -> Client {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    server
        .connect_v1(&format!("/ws?user_id={}{since}", user.id))
        .await
}

#[tokio::test]
async fn a_connected_client_is_reset_once_for_each_table_of_events() {
    for ingest in EACH_INGEST {
        let server = Server::start_with(|config| config.ingest = Some(ingest)).await;
        let db = server.db().await;
        let bob = add_user(&db).await;
        let mut client = connect(&server, &bob, None).await;
        assert_eq!(next_frame(&mut client).await["type"], "hello");
        insert_message(&db, None, &bob, &bob).await;
        assert_eq!(next_frame(&mut client).await["type"], "message");
        for table in ["messages", "sessions"] {
            truncate(&server, table).await;
            let reset = next_frame(&mut client).await;
            assert_eq!(reset["type"], "reset", "{ingest:?} {table}: {reset}");
            assert_eq!(reset["reason"], "truncated");
        }
        // The stream goes on, and the reset does not come again.
        insert_message(&db, None, &bob, &bob).await;
        assert_eq!(
            next_frame(&mut client).await["type"],
            "message",
            "{ingest:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_was_away_is_reset_once() {
    let server = Server::start().await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let mut client = connect(&server, &bob, None).await;
    let hello = next_frame(&mut client).await;
    let before = hello["cursor"].as_str().unwrap();
    drop(client);
    let mut witness = connect(&server, &bob, None).await;
    assert_eq!(next_frame(&mut witness).await["type"], "hello");
    truncate(&server, "messages").await;
    assert_eq!(next_frame(&mut witness).await["type"], "reset");
    insert_message(&db, None, &bob, &bob).await;
    let mut back = connect(&server, &bob, Some(before)).await;
    let hello = next_frame(&mut back).await;
    assert_eq!(hello["resumed"], false, "{hello}");
    let reset = next_frame(&mut back).await;
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&"reset".into(), &"truncated".into())
    );
    let after = reset["cursor"].as_str().unwrap().to_owned();
    drop(back);
    let mut again = connect(&server, &bob, Some(&after)).await;
    assert_eq!(next_frame(&mut again).await["resumed"], true);
}

#[tokio::test]
async fn a_truncation_that_is_rolled_back_resets_nobody() {
    let server = Server::start().await;
    let db = server.db().await;
    let bob = add_user(&db).await;
    let mut client = connect(&server, &bob, None).await;
    assert_eq!(next_frame(&mut client).await["type"], "hello");
    let owner = server.database().owner_pool().await;
    let mut transaction = owner.begin().await.unwrap();
    sqlx::query("TRUNCATE sessions")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    insert_message(&db, None, &bob, &bob).await;
    assert_eq!(next_frame(&mut client).await["type"], "message");
}
