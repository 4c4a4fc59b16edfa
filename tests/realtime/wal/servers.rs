//! PostgreSQL's own bounds, its ends, and how a session proves who it is.

use hushnet_realtime::config::Ingest;
use hushnet_realtime::store::migrate;
use sqlx::Connection;

use super::link::Link;
use super::scene::{STREAMING, Scene};
use crate::support::{
    Database, Pooler, REPLICATION, Server, TlsDatabase, execute, insert_message, until,
};

#[tokio::test]
async fn slots_that_are_used_up_are_named_and_taken_when_they_are_free() {
    let (database, cluster) =
        Database::with_logical_wal_and("wal_slots", &[("max_replication_slots", "1")]).await;
    let others = "SELECT pg_create_physical_replication_slot('other')";
    execute(&mut database.admin().await, others).await;
    let mut scene = Scene::unstreamed(database, |_| {}).await;
    scene.event().await;
    let detail = scene.until_cause("slots").await;
    assert!(detail.contains("replication slots"), "{detail}");
    scene.event().await;
    scene
        .admin("SELECT pg_drop_replication_slot('other')")
        .await;
    scene.until_streaming().await;
    scene.event().await;
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn walsenders_that_are_used_up_are_named_and_taken_when_they_are_free() {
    let (database, cluster) =
        Database::with_logical_wal_and("wal_senders", &[("max_wal_senders", "1")]).await;
    let other = hushnet_replication::open(&database.replication().endpoint())
        .await
        .unwrap();
    let mut scene = Scene::unstreamed(database, |_| {}).await;
    scene.event().await;
    let detail = scene.until_cause("slots").await;
    assert!(detail.contains("max_wal_senders"), "{detail}");
    scene.event().await;
    drop(other);
    scene.until_streaming().await;
    scene.event().await;
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}

/// `max_slot_wal_keep_size`: PostgreSQL takes the slot away, and ends its walsender.
#[tokio::test]
async fn a_slot_that_postgresql_invalidates_is_named_and_replaced() {
    let bounds = [
        ("max_slot_wal_keep_size", "1MB"),
        ("min_wal_size", "32MB"),
        ("max_wal_size", "32MB"),
    ];
    let (database, cluster) = Database::with_logical_wal_and("wal_keep", &bounds).await;
    let mut scene = Scene::set_on(database, |_| {}).await;
    // It pins the slot where it began.
    let mut writer = scene.server.database().connect().await;
    execute(&mut writer, "BEGIN; SELECT pg_current_xact_id()").await;
    let invalidated = "hushnet_wal_stream_failures_total{cause=\"invalidated\"}";
    assert!(scene.server.metric(invalidated).await < 1.0);
    until("PostgreSQL has taken the slot", async || {
        scene
            .admin("SELECT pg_logical_emit_message(false, 'filling', repeat('x', 17000000)); CHECKPOINT")
            .await;
        insert_message(&scene.db, None, &scene.alice, &scene.alice).await;
        scene.next_event().await;
        scene.server.metric(STREAMING).await < 1.0
    })
    .await;
    // The open transaction keeps the next slot away, so that the cause stays for a while.
    let detail = scene.until_cause("invalidated").await;
    assert!(detail.contains("max_slot_wal_keep_size is 1MB"), "{detail}");
    scene.event().await;
    execute(&mut writer, "COMMIT").await;
    scene.until_streaming().await;
    scene.event().await;
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}

/// The server's answers do not reach PostgreSQL, which ends the walsender after a while. What PostgreSQL sends comes until then.
#[tokio::test]
async fn answers_that_do_not_reach_postgresql_are_named_and_the_stream_is_replaced() {
    let bounds = [("wal_sender_timeout", "3s")];
    let (database, cluster) = Database::with_logical_wal_and("wal_unanswered", &bounds).await;
    let link = Link::to(&database).await;
    let url = link.url(REPLICATION);
    let mut scene = Scene::set_on(database, |config| config.replication_url = Some(url)).await;
    scene.event().await;
    // It keeps the next slot away, so that the cause stays for a while.
    let mut writer = scene.server.database().connect().await;
    execute(&mut writer, "BEGIN; SELECT pg_current_xact_id()").await;
    link.keep_back();
    scene.event().await;
    let detail = scene.until_cause("wal_sender_timeout").await;
    assert!(detail.contains("3000 ms"), "{detail}");
    scene.event().await;
    execute(&mut writer, "COMMIT").await;
    scene.until_streaming().await;
    scene.event().await;
    let ended = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(scene.ask::<i64>(ended).await, 1, "the others are gone");
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}

/// A walsender that is stopped sends nothing, and its socket stays open.
#[tokio::test]
async fn a_walsender_that_freezes_is_left() {
    let mut scene = Scene::set().await;
    let pid: i32 = scene
        .ask("SELECT active_pid FROM pg_replication_slots WHERE database = current_database()")
        .await;
    signal("STOP", pid);
    scene.event().await;
    scene.until_cause("silent").await;
    scene.event().await;
    signal("CONT", pid);
    scene.until_streaming().await;
    scene.event().await;
}

fn signal(name: &str, process: i32) {
    let kill = std::process::Command::new("/bin/kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(kill.unwrap().success());
}

/// PostgreSQL asks for an answer after half of the time, and has it.
#[tokio::test]
async fn a_short_wal_sender_timeout_ends_no_stream() {
    let (database, cluster) =
        Database::with_logical_wal_and("wal_timeout", &[("wal_sender_timeout", "500ms")]).await;
    let mut scene = Scene::set_on(database, |_| {}).await;
    let pid = "SELECT active_pid FROM pg_replication_slots";
    let (before, mut beats): (i32, _) = (scene.ask(pid).await, 0);
    until("three keepalives had to be answered", async || {
        let asked =
            "SELECT (reply_time > clock_timestamp() - interval '400 ms') FROM pg_stat_replication";
        beats += i32::from(scene.ask::<bool>(asked).await);
        scene.event().await;
        beats >= 30
    })
    .await;
    assert_eq!(scene.ask::<i32>(pid).await, before);
    scene.server.stopped_now().await;
    cluster.stop().await.unwrap();
}

/// The slot of a database in which nothing is written advances.
#[tokio::test]
async fn the_slot_of_an_idle_database_advances() {
    let scene = Scene::set().await;
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
    let before: String = scene.ask(confirmed).await;
    // Of another database, or of nothing that is published.
    scene
        .admin("SELECT pg_logical_emit_message(false, 'other', repeat('x', 100000))")
        .await;
    let written: String = scene.ask("SELECT pg_current_wal_lsn()::text").await;
    until("the slot has passed it", async || {
        let now: String = scene.ask(confirmed).await;
        now != before && {
            let passed = format!("SELECT '{now}'::pg_lsn >= '{written}'::pg_lsn");
            scene.ask::<bool>(&passed).await
        }
    })
    .await;
}

/// A pooler stands before the database, and the stream goes past it.
#[tokio::test]
async fn the_service_goes_through_a_pooler_and_the_stream_past_it() {
    let database = Database::with_logical_wal().await;
    let pooler = Pooler::start(&database, "session", "").await;
    let direct = database.replication();
    let db = database.pool().await;
    let mut scene = Scene::served(pooler.database(), db, |config| {
        config.replication_url = Some(direct);
    })
    .await;
    scene.until_streaming().await;
    scene.event().await;
}

/// SCRAM and TLS are those of the other connections.
#[tokio::test]
async fn a_stream_proves_who_it_is_over_tls_and_a_changed_password_is_named() {
    let database = TlsDatabase::start().await;
    let verified = format!(
        "sslmode=verify-full&sslrootcert={}",
        database.root().display()
    );
    let url = database.url("localhost", &verified);
    migrate::up(&url.parse().unwrap()).await.unwrap();
    let mut admin = database.connect().await;
    let streaming = "CREATE ROLE streams LOGIN REPLICATION PASSWORD 'one'";
    execute(&mut admin, streaming).await;
    let_in(&database, "streams").await;
    let role = |password: &str| {
        let port = database.port;
        format!("postgres://streams:{password}@localhost:{port}/hushnet?{verified}")
            .parse()
            .unwrap()
    };
    let server = Server::start_on(Database::of_one_role(&url), |config| {
        config.ingest = Some(Ingest::Wal);
        config.replication_url = Some(role("one"));
    })
    .await;
    server.until_metric(STREAMING, 1.0).await;
    let encrypted = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    let is_encrypted: bool = sqlx::query_scalar(encrypted)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(is_encrypted);
    execute(&mut admin, "ALTER ROLE streams PASSWORD 'two'").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
    execute(&mut admin, end).await;
    let failures = "hushnet_wal_stream_failures_total{cause=\"privilege\"}";
    server.until_metric(failures, 1.0).await;
    execute(&mut admin, "ALTER ROLE streams PASSWORD 'one'").await;
    server.until_metric(STREAMING, 1.0).await;
    admin.close().await.unwrap();
    server.stopped_now().await;
}

/// Lets a role log in as the other one may.
async fn let_in(database: &TlsDatabase, role: &str) {
    let mut admin = database.connect().await;
    let file: String = sqlx::query_scalar("SHOW hba_file")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("host all {role} 127.0.0.1/32 scram-sha-256\n{rules}"),
    )
    .unwrap();
    execute(&mut admin, "SELECT pg_reload_conf()").await;
}

/// A certificate of an authority that is not known.
#[tokio::test]
async fn a_server_that_cannot_be_verified_is_not_streamed_from() {
    let database = TlsDatabase::start().await;
    let url = database.url("localhost", "sslmode=require");
    migrate::up(&url.parse().unwrap()).await.unwrap();
    let other = format!(
        "sslmode=verify-full&sslrootcert={}",
        database.other_root().display()
    );
    for (parameters, host) in [
        (other, "localhost"),
        (
            format!(
                "sslmode=verify-full&sslrootcert={}",
                database.root().display()
            ),
            "127.0.0.1",
        ),
    ] {
        let replication = database.url(host, &parameters).parse().unwrap();
        let server = Server::start_on(Database::of_one_role(&url), |config| {
            config.ingest = Some(Ingest::Wal);
            config.replication_url = Some(replication);
        })
        .await;
        let failures = "hushnet_wal_stream_failures_total{cause=\"unreachable\"}";
        server.until_metric(failures, 1.0).await;
        assert!(server.metric(STREAMING).await < 1.0);
        server.stopped_now().await;
    }
}
