//! What happens to clients and to `/readyz` when a part fails.

use hushnet_devbus::{BrokerKind, BrokerOptions};
use hushnet_realtime::config::Config;
use hushnet_testkit::roles;
use serde_json::json;

use super::team::{Team, follows, ids, leads, next, reads, settled, sum, until_reason, v1};
use crate::over_both;
use crate::support::{Database, add_user, insert_message, until};

over_both! {
    /// Each node reads the log itself while there is no bus, and says so; afterwards one leads again.
    async fn a_bus_that_dies_and_comes_back_empty_loses_nothing(team: Team) {
        let mut team = team;
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut client, _) = v1(&follower, bob.id, None).await;
        let mut all = Vec::new();
        for _ in 0..2 {
            insert_message(&db, None, &alice, &bob).await;
            all.extend(ids(&mut client, 1).await);
            team.broker().kill();
            insert_message(&db, None, &alice, &bob).await;
            reads(&follower).await;
            until_reason(&follower, Some("bus_disconnected")).await;
            assert_eq!(follower.get("/readyz").await.status, 200);
            insert_message(&db, None, &alice, &bob).await;
            all.extend(ids(&mut client, 2).await);
            team.broker().restart().await.unwrap();
            settled(&[&leader, &follower]).await;
            until_reason(&follower, None).await;
            until_reason(&leader, None).await;
        }
        insert_message(&db, None, &alice, &bob).await;
        all.extend(ids(&mut client, 1).await);
        assert!(all.is_sorted() && all.len() == 7, "{all:?}");
    }

    /// Its kernel answers, and no message comes.
    async fn a_bus_that_is_stopped_is_known_by_its_silence(team: Team) {
        let mut team = team;
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut client, _) = v1(&follower, bob.id, None).await;
        insert_message(&db, None, &alice, &bob).await;
        ids(&mut client, 1).await;
        team.broker().freeze();
        insert_message(&db, None, &alice, &bob).await;
        ids(&mut client, 1).await;
        until_reason(&follower, Some("bus_silent")).await;
        team.broker().thaw();
        insert_message(&db, None, &alice, &bob).await;
        ids(&mut client, 1).await;
        until_reason(&follower, None).await;
    }

    /// A session of the database's administrator ends it, as a failing network would.
    async fn a_leader_whose_session_is_ended_leads_no_longer(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut client, _) = v1(&follower, bob.id, None).await;
        let term = leader.metric("hushnet_node_term").await;
        let mut admin = team.database.admin().await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = 'hushnet-realtime leader' AND datname = current_database()";
        crate::support::execute(&mut admin, end).await;
        until("a later term", async || {
            let of_leader = leader.metric("hushnet_node_term").await;
            of_leader.max(follower.metric("hushnet_node_term").await) > term
        })
        .await;
        for _ in 0..20 {
            insert_message(&db, None, &alice, &bob).await;
        }
        assert!(ids(&mut client, 20).await.is_sorted());
    }

    /// Events still come over the bus, and nobody new can be let in.
    async fn a_follower_whose_database_refuses_it_is_not_ready(team: Team) {
        let leader = team.node("leader").await;
        leads(&leader).await;
        let role = format!("follower_{}", uuid::Uuid::new_v4().simple());
        let mut admin = team.database.admin().await;
        let create = format!("CREATE ROLE {role} LOGIN IN ROLE {}", roles::SERVICE);
        crate::support::execute(&mut admin, &create).await;
        let url = team.database.served_by(&role).url.parse().unwrap();
        let change = |config: &mut Config| config.database_url = Some(url);
        let follower = team.node_with("follower", change).await;
        follows(&follower).await;
        for (login, status) in [("NOLOGIN", 503), ("LOGIN", 200)] {
            let alter = format!(
                "ALTER ROLE {role} {login};
                 SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{role}'"
            );
            crate::support::execute(&mut admin, &alter).await;
            until(&format!("/readyz to be {status}"), async || {
                follower.get("/readyz").await.status == status
            })
            .await;
        }
        follows(&follower).await;
    }

    /// The follower hears of its leader more often than that. A flush that it began anew each time would never end.
    async fn a_flush_that_takes_a_second_lets_a_follower_take_a_shard(team: Team) {
        let (leader, follower) = team.pair().await;
        let db = leader.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let mut owner = team.database.owner_pool().await.acquire().await.unwrap();
        let slow = "SELECT setval('realtime.flushes', 1);
                    CREATE OR REPLACE FUNCTION realtime.flush() RETURNS void LANGUAGE sql SECURITY DEFINER
                    SET search_path = pg_catalog, pg_temp
                    AS 'SELECT nextval(''realtime.flushes''), pg_sleep(1)'";
        crate::support::execute(&mut owner, slow).await;
        // Nobody waits for the disk (`synchronous_commit = off`).
        insert_message(&db, None, &alice, &alice).await;
        let (mut client, _) = v1(&follower, bob.id, None).await;
        insert_message(&db, None, &alice, &bob).await;
        ids(&mut client, 1).await;
        let flushes = "SELECT last_value FROM realtime.flushes";
        let flushes: i64 = sqlx::query_scalar(flushes).fetch_one(&mut *owner).await.unwrap();
        assert!(flushes > 1, "nothing was flushed");
    }

    async fn a_node_starts_without_its_bus_and_finds_it_later(team: Team) {
        let mut team = team;
        team.broker().kill();
        let node = team.node("alone").await;
        until_reason(&node, Some("bus_disconnected")).await;
        let db = node.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let (mut client, _) = v1(&node, bob.id, None).await;
        insert_message(&db, None, &alice, &bob).await;
        ids(&mut client, 1).await;
        team.broker().restart().await.unwrap();
        leads(&node).await;
        until_reason(&node, None).await;
    }

    /// Two databases on one bus have a leader each, and no event of the other.
    async fn two_databases_on_one_bus_do_not_meet(team: Team) {
        let (leader, follower) = team.pair().await;
        let other = Team::of_the_same_broker(&team).await;
        let of_other = other.node("other").await;
        leads(&of_other).await;
        let second = other.node("second").await;
        follows(&second).await;
        let (db, db_of_other) = (leader.db().await, of_other.db().await);
        let bob = add_user(&db).await;
        let carol = add_user(&db_of_other).await;
        let (mut of_bob, _) = v1(&follower, bob.id, None).await;
        let (mut of_carol, _) = v1(&second, carol.id, None).await;
        insert_message(&db, None, &bob, &bob).await;
        insert_message(&db_of_other, None, &carol, &carol).await;
        ids(&mut of_bob, 1).await;
        ids(&mut of_carol, 1).await;
        for server in [&follower, &second] {
            let series = "hushnet_events_received_total{kind=\"message\"}";
            assert_eq!(sum(&[server], series).await, 1);
        }
    }
}

/// Followers see that it is missing, and read it from the log.
#[tokio::test]
async fn a_message_that_the_bus_does_not_take_is_counted_and_its_event_comes() {
    let options = BrokerOptions {
        configuration: "max_payload: 4096".to_owned(),
        ..BrokerOptions::default()
    };
    let team = Team::with(BrokerKind::Nats, options).await;
    let (leader, follower) = team.pair().await;
    let bob = add_user(&leader.db().await).await;
    let (mut client, _) = v1(&follower, bob.id, None).await;
    let mut owner = team.database.connect().await;
    let letter = format!(
        "CREATE TABLE letters (id int PRIMARY KEY, reader uuid, body text);
         SELECT realtime.add_source('letter', 'public.letters', 'reader', fields => '{{body}}');
         INSERT INTO letters VALUES (1, '{}', repeat('x', 6000))",
        bob.id
    );
    crate::support::execute(&mut owner, &letter).await;
    let event = next(&mut client).await;
    assert_eq!(event["row"]["body"].as_str().unwrap().len(), 6000);
    let dropped = "hushnet_bus_messages_dropped_total{cause=\"payload_too_large\"}";
    leader.until_metric(dropped, 1.0).await;
}

#[tokio::test]
async fn a_bus_that_comes_back_is_found_by_a_node_without_a_log() {
    let database = Database::hushnet().await;
    let mut team = Team::of(BrokerKind::Nats, BrokerOptions::default(), database).await;
    let node = team.node("node").await;
    until_reason(&node, None).await;
    team.broker().kill();
    until_reason(&node, Some("bus_disconnected")).await;
    team.broker().restart().await.unwrap();
    until_reason(&node, None).await;
}

/// `/readyz` names what is wrong, and events come.
#[tokio::test]
async fn a_wrong_password_is_named() {
    let configuration = "requirepass right".to_owned();
    let options = BrokerOptions {
        configuration,
        ..BrokerOptions::default()
    };
    let team = Team::with(BrokerKind::Redis, options).await;
    let node = team.node("node").await;
    until_reason(&node, Some("bus_disconnected")).await;
    let answer = node.get("/readyz").await;
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let reasons = body["reasons"].as_array().unwrap();
    let reason = reasons
        .iter()
        .find(|reason| reason["code"] == json!("bus_disconnected"));
    let detail = reason.unwrap()["detail"].as_str().unwrap();
    assert!(
        detail.contains("login") || detail.contains("password"),
        "{detail}"
    );
    let db = node.db().await;
    let bob = add_user(&db).await;
    let (mut client, _) = v1(&node, bob.id, None).await;
    insert_message(&db, None, &bob, &bob).await;
    ids(&mut client, 1).await;
}
