//! Which way of ingest is taken, and whose choice it is.

use hushnet_realtime::config::Ingest;

use super::scene::{STREAMING, Scene};
use crate::support::{Database, Server};

/// What the database says: the way of ingest, and whether somebody has chosen it.
async fn written_way(database: &Database) -> (String, bool) {
    let query =
        "SELECT CASE WHEN streams THEN 'wal' ELSE ingest END, ingest_chosen FROM realtime.state";
    let mut admin = database.admin().await;
    sqlx::query_as(query).fetch_one(&mut admin).await.unwrap()
}

async fn unchosen(database: &Database) {
    let unchosen = "UPDATE realtime.state SET ingest_chosen = false";
    crate::support::execute(&mut database.connect().await, unchosen).await;
}

#[tokio::test]
async fn auto_takes_wal_where_it_can_be_had_and_else_adaptive() {
    let database = Database::with_logical_wal().await;
    unchosen(&database).await;
    let server = Server::start_on(database, |_| {}).await;
    assert_eq!(
        written_way(server.database()).await,
        ("adaptive".to_owned(), false)
    );
    let url = server.database().replication();
    let other = Server::start_on(server.database().clone(), |config| {
        config.replication_url = Some(url);
    })
    .await;
    other.until_metric(STREAMING, 1.0).await;
    assert_eq!(
        written_way(server.database()).await,
        ("wal".to_owned(), false)
    );
    // A server that cannot stream takes nothing back.
    let third = Server::start_on(server.database().clone(), |_| {}).await;
    assert_eq!(
        written_way(third.database()).await,
        ("wal".to_owned(), false)
    );
}

/// What was missing is mended while the server runs.
#[tokio::test]
async fn auto_takes_wal_when_it_can_be_had_later() {
    let database = Database::with_logical_wal().await;
    unchosen(&database).await;
    let mut admin = database.admin().await;
    crate::support::execute(&mut admin, "DROP PUBLICATION realtime_log").await;
    let url = database.replication();
    let server = Server::start_on(database, |config| config.replication_url = Some(url)).await;
    assert_eq!(
        written_way(server.database()).await,
        ("adaptive".to_owned(), false)
    );
    let publish = "CREATE PUBLICATION realtime_log FOR TABLE realtime.log
        WITH (publish = 'insert', publish_via_partition_root = true)";
    crate::support::execute(&mut admin, publish).await;
    server.until_metric(STREAMING, 1.0).await;
    assert_eq!(
        written_way(server.database()).await,
        ("wal".to_owned(), false)
    );
}

/// Somebody chooses `adaptive` while a server looks whether `wal` can be had.
#[tokio::test]
async fn auto_looks_no_more_where_somebody_has_chosen() {
    let database = Database::with_logical_wal().await;
    let log = database.log(1);
    for (way, may) in [("wal", false), ("adaptive", false)] {
        let set = format!("SELECT realtime.set_ingest('{way}')");
        crate::support::execute(&mut database.connect().await, &set).await;
        assert_eq!(log.may_propose_wal().await.unwrap(), may, "{way}");
    }
    unchosen(&database).await;
    assert!(log.may_propose_wal().await.unwrap());
    log.propose_ingest(Ingest::Wal).await.unwrap();
    assert!(!log.may_propose_wal().await.unwrap(), "it is proposed");
    let dropped = "DROP SCHEMA realtime CASCADE";
    crate::support::execute(&mut database.admin().await, dropped).await;
    assert!(!log.may_propose_wal().await.unwrap(), "there is no log");
}

#[tokio::test]
async fn auto_changes_no_choice() {
    let database = Database::with_logical_wal().await;
    let url = database.replication();
    let server = Server::start_on(database, |config| config.replication_url = Some(url)).await;
    assert_eq!(
        written_way(server.database()).await,
        ("notify".to_owned(), true)
    );
    // Whatever has changed it.
    unchosen(server.database()).await;
    let change = "UPDATE realtime.state SET ingest = 'tail'";
    crate::support::execute(&mut server.database().connect().await, change).await;
    assert_eq!(
        written_way(server.database()).await,
        ("tail".to_owned(), true)
    );
}

#[tokio::test]
async fn a_server_without_a_credential_polls_and_says_so() {
    let database = Database::with_logical_wal().await;
    let mut scene = Scene::unstreamed(database, |config| config.replication_url = None).await;
    scene.event().await;
    let detail = scene.until_cause("no_url").await;
    assert!(detail.contains("--replication-url"), "{detail}");
    scene.event().await;
}

/// To polling and back, and to the other ways: no event is lost, and no cursor.
#[tokio::test]
async fn the_way_is_changed_while_events_come() {
    let mut scene = Scene::set().await;
    for way in ["tail", "wal", "notify", "wal", "adaptive", "wal"] {
        scene.event().await;
        let set = format!("SELECT realtime.set_ingest('{way}')");
        scene.admin(&set).await;
        scene.event().await;
        if way == "wal" {
            scene.until_streaming().await;
        } else {
            scene.until_polling().await;
        }
        scene.event().await;
    }
    let ready = scene.server.get("/readyz").await;
    assert_eq!(ready.json()["status"], "ready", "{}", ready.body);
}

#[tokio::test]
async fn the_setting_chooses_wal() {
    let scene = Scene::set().await;
    let told = written_way(scene.server.database()).await;
    assert_eq!(told, (Ingest::Wal.as_str().to_owned(), true));
}
