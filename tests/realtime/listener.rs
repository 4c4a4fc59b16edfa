//! The listener reconnects after its database was away, and starts before its database.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::{Database, Server, cluster, connect, execute, notify, until};

#[tokio::test]
async fn a_terminated_listener_comes_back() {
    let server = Server::start().await;
    let db = server.db().await;
    let user = Uuid::new_v4();
    let mut client = server.connect(user).await;
    for round in 1..=3 {
        server.database().end_listener().await;
        server
            .until_metric("hushnet_listener_reconnects_total", f64::from(round))
            .await;
        until("ready again", async || {
            server.get("/readyz").await.status == 200
        })
        .await;
        assert!(server.metric("hushnet_listener_connected").await >= 1.0);
        let event =
            format!(r#"{{"type":"device","user_id":"{user}","id":{round},"round":{round}}}"#);
        notify(&db, "devices_channel", &event).await;
        assert_eq!(client.next_json().await["round"], round);
    }
}

#[tokio::test]
async fn the_service_starts_before_its_database() {
    let database = Database::hushnet().await;
    let (base, name) = database
        .url
        .split_once("/t_")
        .map(|(base, rest)| {
            (
                base.to_owned(),
                format!("t_{}", rest.split('?').next().unwrap()),
            )
        })
        .unwrap();
    assert!(!base.is_empty());
    let mut admin = connect(&cluster().url("postgres")).await;
    let away = format!("{name}_away");
    execute(
        &mut admin,
        &format!("ALTER DATABASE {name} RENAME TO {away}"),
    )
    .await;

    let server = Server::start_unready(database, |_| {});
    assert_eq!(server.get("/readyz").await.status, 503);
    // A client that connects now gets the later events.
    let user = Uuid::new_v4();
    let mut client = server.connect(user).await;

    execute(
        &mut admin,
        &format!("ALTER DATABASE {away} RENAME TO {name}"),
    )
    .await;
    until("ready", async || server.get("/readyz").await.status == 200).await;
    let event = format!(r#"{{"type":"device","user_id":"{user}"}}"#);
    let statement = format!("NOTIFY devices_channel, '{event}'");
    let mut connection = server.database().connect().await;
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(client.next_text().await, event);
}
