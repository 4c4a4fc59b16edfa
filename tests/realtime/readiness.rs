//! `/readyz` follows the barriers: it is red when none commits and when none returns, says why, and becomes green by
//! itself.

use serde_json::Value;

use crate::support::{Database, Server, add_user, execute, insert_message, until};

const RECONNECTS: &str = "hushnet_listener_reconnects_total";

const BREAK: &str = "ALTER FUNCTION realtime.barrier(text) RENAME TO barrier_of_before;";
const MEND: &str = "DROP FUNCTION IF EXISTS realtime.barrier(text);
    ALTER FUNCTION realtime.barrier_of_before(text) RENAME TO barrier;";

/// Waits until `/readyz` refuses clients with this code. Returns the reason.
async fn until_refused(server: &Server, code: &str) -> Value {
    let mut found = Value::Null;
    until(&format!("/readyz says {code}"), async || {
        let ready = server.get("/readyz").await;
        let body = ready.json();
        found = body["reasons"][0].clone();
        ready.status == 503 && body["error"]["code"] == code && found["code"] == code
    })
    .await;
    found
}

async fn until_ready(server: &Server) {
    until("/readyz is green", async || {
        let ready = server.get("/readyz").await;
        ready.status == 200 && ready.json()["status"] == "ready"
    })
    .await;
}

async fn change(server: &Server, statements: &str) {
    let mut connection = server.database().connect().await;
    execute(&mut connection, statements).await;
}

#[tokio::test]
async fn barriers_that_fail_turn_readyz_red_and_leave_the_listener_alone() {
    let server = Server::start().await;
    let db = server.db().await;
    let alice = add_user(&db).await;
    let mut client = server.connect(alice.id).await;
    assert!(
        server.get("/readyz").await.json()["reasons"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    change(&server, BREAK).await;

    let reason = until_refused(&server, "barrier_failed").await;
    let detail = reason["detail"].as_str().unwrap();
    assert!(
        detail.contains("realtime.barrier") && detail.ends_with("(42883)"),
        "{detail}"
    );
    let failed = "hushnet_barriers_failed_total{cause=\"undefined\"}";
    assert!(server.metric(failed).await >= 1.0);
    let given = "hushnet_readiness_reasons{reason=\"barrier_failed\"}";
    assert!(server.metric(given).await >= 1.0);
    assert!(server.metric("hushnet_barrier_age_seconds").await >= 10.0);
    let rebuilt = server.metric(RECONNECTS).await;
    assert!(rebuilt < 1.0, "the listener was rebuilt");
    // The listener still receives.
    insert_message(&db, None, &alice, &alice).await;
    client.until_type("message").await;

    change(&server, MEND).await;
    until_ready(&server).await;
    assert!(server.metric(given).await < 1.0);
    assert!(server.metric("hushnet_barrier_age_seconds").await < 10.0);
    assert!(
        server.metric(RECONNECTS).await < 1.0,
        "the listener was rebuilt"
    );
}

#[tokio::test]
async fn barriers_that_are_not_heard_turn_readyz_red_and_rebuild_the_listener() {
    let server = Server::start_with(|config| config.barrier_interval_ms = 100).await;
    let deaf = "CREATE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE sql AS
        $$ SELECT pg_notify('nobody_listens', nonce) $$;";
    change(&server, &format!("{BREAK}{deaf}")).await;

    let reason = until_refused(&server, "barrier_not_returned").await;
    let detail = reason["detail"].as_str().unwrap();
    assert!(detail.starts_with("the last barrier returned"), "{detail}");
    server.until_metric(RECONNECTS, 1.0).await;

    change(&server, MEND).await;
    until_ready(&server).await;
}

/// A barrier that is missed stands behind nothing, when all that comes is new.
#[tokio::test]
async fn events_that_come_do_not_hide_that_barriers_do_not_return() {
    let server = Server::start_with(|config| config.barrier_interval_ms = 100).await;
    let db = server.db().await;
    let alice = add_user(&db).await;
    let deaf = "CREATE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE sql AS
        $$ SELECT pg_notify('nobody_listens', nonce) $$;";
    change(&server, &format!("{BREAK}{deaf}")).await;

    let writing = tokio::spawn(async move {
        loop {
            insert_message(&db, None, &alice, &alice).await;
        }
    });
    until_refused(&server, "barrier_not_returned").await;
    server.until_metric(RECONNECTS, 1.0).await;
    assert!(!writing.is_finished());
    writing.abort();
}

#[tokio::test]
async fn a_start_without_a_barrier_that_commits_is_not_ready() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    execute(&mut connection, BREAK).await;
    let server = Server::start_unready(database, |_| {});
    until_refused(&server, "barrier_failed").await;
    execute(&mut connection, MEND).await;
    until_ready(&server).await;
}

#[tokio::test]
async fn each_cause_of_a_failure_is_counted() {
    let server = Server::start_with(|config| config.barrier_interval_ms = 50).await;
    change(&server, BREAK).await;
    for (sqlstate, cause) in [
        ("42501", "privilege"),
        ("53100", "full"),
        ("57014", "timeout"),
        ("P0001", "other"),
    ] {
        let failing = format!(
            "CREATE OR REPLACE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE plpgsql AS
             $$ BEGIN RAISE 'refused' USING ERRCODE = '{sqlstate}'; END $$;"
        );
        change(&server, &failing).await;
        let series = format!("hushnet_barriers_failed_total{{cause=\"{cause}\"}}");
        server.until_metric(&series, 1.0).await;
    }
    change(&server, MEND).await;
    until_ready(&server).await;
    let rebuilt = server.metric(RECONNECTS).await;
    assert!(rebuilt < 1.0, "the listener was rebuilt");
}

/// As for a commit of millions of notifications.
#[tokio::test]
async fn a_barrier_that_waits_for_a_lock_for_a_moment_changes_nothing() {
    let server = Server::start_with(|config| config.barrier_interval_ms = 6_000).await;
    let mut holder = server.database().connect().await;
    let waiting = "CREATE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE sql AS
        $$ SELECT pg_advisory_xact_lock(7); SELECT realtime.barrier_of_before(nonce) $$;";
    execute(&mut holder, "SELECT pg_advisory_lock(7);").await;
    change(&server, &format!("{BREAK}{waiting}")).await;
    // The service has noticed it.
    until("a barrier is known to wait", async || {
        server.metric("hushnet_barrier_uncommitted").await > 0.0
    })
    .await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.body);
    execute(&mut holder, "SELECT pg_advisory_unlock(7);").await;
    let committed = async || server.metric("hushnet_barrier_uncommitted").await < 1.0;
    until("barriers commit again", committed).await;
    let rebuilt = server.metric(RECONNECTS).await;
    assert!(rebuilt < 1.0, "the listener was rebuilt");
}

#[tokio::test]
async fn a_barrier_that_waits_to_commit_turns_readyz_red_and_leaves_the_listener_alone() {
    let server = Server::start_with(|config| config.barrier_interval_ms = 100).await;
    let mut holder = server.database().connect().await;
    let waiting = "CREATE FUNCTION realtime.barrier(nonce text) RETURNS void LANGUAGE sql AS
        $$ SELECT pg_advisory_xact_lock(7); SELECT realtime.barrier_of_before(nonce) $$;";
    execute(&mut holder, "SELECT pg_advisory_lock(7);").await;
    change(&server, &format!("{BREAK}{waiting}")).await;

    until_refused(&server, "barrier_uncommitted").await;

    execute(&mut holder, "SELECT pg_advisory_unlock(7);").await;
    until_ready(&server).await;
    assert!(
        server.metric(RECONNECTS).await < 1.0,
        "the listener was rebuilt"
    );
}
