//! Who leads when processes are killed or stopped, when the database restarts, is promoted or names another, and when the
//! service's role or the schema does not allow an election.

use hushnet_devbus::{BrokerKind, BrokerOptions};
use hushnet_devdb::Cluster;
use hushnet_realtime::config::{Config, Ingest};
use hushnet_realtime::store::{Log, Purpose, migrate};
use hushnet_testkit::database::UNSAFE_SETTINGS;
use hushnet_testkit::roles;
use hushnet_testkit::server::Server as Process;
use serde_json::Value;
use uuid::Uuid;

use super::team::{self, Team, follows, ids, leads, until_reason, v1};
use crate::over_both;
use crate::recovery::{self, Pair};
use crate::support::{Database, Server, add_user, execute, insert_message, until};

const LEADING: &str = "hushnet_node_leading";
const FOLLOWING: &str = "hushnet_node_following";

async fn until_metric(of: &Process, series: &str, wanted: f64) {
    until(&format!("{series} to be {wanted}"), async || {
        (of.metric(series).await - wanted).abs() < 0.5
    })
    .await;
}

/// The term of the leader that the database names; 0 before the first.
async fn term(log: &Log) -> u64 {
    let leader = log.leader().await.ok().flatten();
    leader.map_or(0, |leader| leader.term)
}

/// Until one of the two leads and the other follows.
async fn until_led(a: &Server, b: &Server) {
    until("one to lead and the other to follow", async || {
        let sum = async |series| a.metric(series).await + b.metric(series).await;
        (sum(LEADING).await - 1.0).abs() < 0.5 && (sum(FOLLOWING).await - 1.0).abs() < 0.5
    })
    .await;
}

async fn until_nobody_leads(a: &Server, b: &Server) {
    until("nobody to lead", async || {
        a.metric(LEADING).await + b.metric(LEADING).await == 0.0
    })
    .await;
}

/// An event comes to a client of each.
async fn event_comes(database: &Database, servers: [&Server; 2]) {
    let db = database.pool().await;
    let bob = add_user(&db).await;
    for server in servers {
        let (mut client, _) = v1(server, bob.id, None).await;
        insert_message(&db, None, &bob, &bob).await;
        assert_eq!(ids(&mut client, 1).await.len(), 1);
    }
}

async fn of(kind: BrokerKind, database: Database) -> Team {
    Team::of(kind, BrokerOptions::default(), database).await
}

over_both! {
    async fn a_leader_that_is_killed_is_followed_by_another(team: Team) {
        let first = team.process("first").await;
        until_metric(&first, LEADING, 1.0).await;
        let second = team.node("second").await;
        follows(&second).await;
        let db = second.db().await;
        let bob = add_user(&db).await;
        let (mut client, _) = v1(&second, bob.id, None).await;
        insert_message(&db, None, &bob, &bob).await;
        first.program.kill().await;
        for _ in 0..5 {
            insert_message(&db, None, &bob, &bob).await;
        }
        leads(&second).await;
        insert_message(&db, None, &bob, &bob).await;
        let events = ids(&mut client, 7).await;
        assert!(events.is_sorted(), "{events:?}");
        assert_eq!(term(&team.database.log(1)).await, 2);
    }

    /// Its kernel goes on to answer. When it continues, it says nothing more that others heed.
    async fn a_leader_that_is_stopped_loses_the_lead_and_follows_when_it_continues(team: Team) {
        let first = team.process("first").await;
        until_metric(&first, LEADING, 1.0).await;
        let second = team.node("second").await;
        follows(&second).await;
        let db = second.db().await;
        let bob = add_user(&db).await;
        let (mut client, _) = v1(&second, bob.id, None).await;
        first.program.signal("STOP").await;
        insert_message(&db, None, &bob, &bob).await;
        leads(&second).await;
        insert_message(&db, None, &bob, &bob).await;
        first.program.signal("CONT").await;
        until_metric(&first, LEADING, 0.0).await;
        until_metric(&first, FOLLOWING, 1.0).await;
        insert_message(&db, None, &bob, &bob).await;
        let events = ids(&mut client, 3).await;
        assert!(events.is_sorted(), "{events:?}");
        assert_eq!(team::sum(&[&second], LEADING).await, 1);
        assert_eq!(term(&team.database.log(1)).await, 2);
    }
}

/// Its small questions are answered, as where a network loses all large packets.
#[tokio::test]
async fn a_leader_that_cannot_read_the_log_leads_no_longer() {
    let team = Team::start(BrokerKind::Nats).await;
    let role = format!("leader_{}", Uuid::new_v4().simple());
    let create = format!("CREATE ROLE {role} LOGIN IN ROLE {}", roles::SERVICE);
    execute(&mut team.database.admin().await, &create).await;
    let url = team.database.served_by(&role).url.parse().unwrap();
    let change = |config: &mut Config| {
        config.database_url = Some(url);
        config.ingest = Some(Ingest::Tail);
    };
    let leader = team.node_with("leader", change).await;
    leads(&leader).await;
    let follower = team.node("follower").await;
    follows(&follower).await;
    let db = follower.db().await;
    let bob = add_user(&db).await;
    let (mut client, _) = v1(&follower, bob.id, None).await;
    let mut owner = team.database.owner_pool().await.acquire().await.unwrap();
    let view: String = sqlx::query_scalar("SELECT pg_get_viewdef('realtime.events')")
        .fetch_one(&mut *owner)
        .await
        .unwrap();
    let view = format!(
        "CREATE OR REPLACE VIEW realtime.events AS {}",
        view.trim_end_matches(';')
    );
    let slow = format!("{view} AND (current_user <> '{role}' OR pg_sleep(20)::text = '')");
    execute(&mut owner, &slow).await;

    insert_message(&db, None, &bob, &bob).await;
    leads(&follower).await;
    ids(&mut client, 1).await;
    until_reason(&follower, None).await;
    until_reason(&leader, Some("listener_disconnected")).await;
    execute(&mut owner, &view).await;
    follows(&leader).await;
    until_reason(&leader, None).await;
    event_comes(&team.database, [&leader, &follower]).await;
}

/// As after a failover that has forgotten who led, or by a person's hand. No other node misses the leader here.
#[tokio::test]
async fn a_leader_whose_run_the_database_does_not_name_leads_no_longer() {
    let team = Team::start(BrokerKind::Nats).await;
    let node = team.node("node").await;
    leads(&node).await;
    let mut owner = team.database.connect().await;
    let lead = "SELECT realtime.lead(gen_random_uuid(), 'nobody', 7)";
    execute(&mut owner, lead).await;
    let log = team.database.log(1);
    until("a node to be elected again", async || term(&log).await == 3).await;
    assert_eq!(log.leader().await.unwrap().unwrap().name, "node");
    event_comes(&team.database, [&node, &node]).await;
}

/// As after a restore of the database. No other node misses the leader here.
#[tokio::test]
async fn a_new_history_is_led_in_another_run() {
    let team = Team::start(BrokerKind::Nats).await;
    let node = team.node("node").await;
    leads(&node).await;
    let log = team.database.log(1);
    log.renew_history(None).await.unwrap();
    until("a run of the new history", async || term(&log).await == 2).await;
    let follower = team.node("follower").await;
    follows(&follower).await;
    event_comes(&team.database, [&node, &follower]).await;
}

/// Two nodes of a database in a cluster of the test's own.
#[tokio::test]
async fn a_restart_of_the_database_elects_again() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    open_to_all(directory.path());
    let home = directory.path().join("database");
    let cluster = Cluster::start_with(&home, &UNSAFE_SETTINGS).await.unwrap();
    let database = Database::made_in(&cluster, recovery::NAME).await;
    let team = of(BrokerKind::Nats, database).await;
    let (leader, follower) = team.pair().await;
    let log = team.database.log(1);
    assert_eq!(term(&log).await, 1);
    cluster.stop().await.unwrap();
    until_nobody_leads(&leader, &follower).await;
    let cluster = Cluster::start_with(&home, &UNSAFE_SETTINGS).await.unwrap();
    until_led(&leader, &follower).await;
    assert!(term(&log).await >= 2);
    event_comes(&team.database, [&leader, &follower]).await;
    for server in [leader, follower] {
        server.stopped_now().await;
    }
    cluster.stop().await.unwrap();
}

fn open_to_all(directory: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory, all).unwrap();
}

/// The address leads to the standby, which is promoted: the new timeline has a leader of its own.
#[tokio::test]
async fn a_promotion_elects_again_on_the_new_timeline() {
    let pair = Pair::start().await;
    let address = pair.directory.path().join("address");
    recovery::lead(&address, &pair.primary);
    let database = Database::of(&recovery::url(&address));
    let team = of(BrokerKind::Nats, database).await;
    let (leader, follower) = team.pair().await;
    recovery::lead(&address, &pair.standby);
    pair.primary.stop().await.unwrap();
    until_reason(&leader, Some("recovery")).await;
    until_nobody_leads(&leader, &follower).await;

    let standby = Database::of(&pair.standby.url(recovery::NAME));
    execute(&mut standby.admin().await, "SELECT pg_promote()").await;
    until_led(&leader, &follower).await;
    assert!(term(&standby.log(1)).await >= 2);
    event_comes(&standby, [&leader, &follower]).await;
    for server in [leader, follower] {
        server.stopped_now().await;
    }
    pair.standby.stop().await.unwrap();
}

/// Both primaries work. The nodes of the former one, leader and follower, hear of the other over the bus.
#[tokio::test]
async fn nodes_of_a_former_primary_say_so_and_go_to_the_new_one() {
    let pair = Pair::start().await;
    let address = pair.directory.path().join("address");
    recovery::lead(&address, &pair.primary);
    let team = of(BrokerKind::Nats, Database::of(&recovery::url(&address))).await;
    let (leader, follower) = team.pair().await;
    let standby = Database::of(&pair.standby.url(recovery::NAME));
    execute(&mut standby.admin().await, "SELECT pg_promote()").await;
    let url = standby.url.parse().unwrap();
    let of_standby = |config: &mut Config| config.database_url = Some(url);
    let third = team.node_with("third", of_standby).await;
    leads(&third).await;
    for server in [&leader, &follower] {
        until_reason(server, Some("newer_timeline")).await;
    }
    recovery::lead(&address, &pair.standby);
    for server in [&leader, &follower] {
        follows(server).await;
        until_reason(server, None).await;
    }
    event_comes(&standby, [&leader, &follower]).await;
    for server in [leader, follower, third] {
        server.stopped_now().await;
    }
    pair.primary.stop().await.unwrap();
    pair.standby.stop().await.unwrap();
}

/// It reads the log by itself, and says what is missing.
#[tokio::test]
async fn a_node_without_the_right_to_lead_serves_and_leads_when_it_is_granted() {
    let database = Database::migrated().await;
    let role = format!("t_{}", Uuid::new_v4().simple());
    let mut admin = database.admin().await;
    execute(&mut admin, &format!("CREATE ROLE {role} LOGIN")).await;
    let owner = database.owner();
    migrate::grant(&owner, &role, Purpose::Serve).await.unwrap();
    let revoke = format!("REVOKE EXECUTE ON FUNCTION realtime.leader_lock FROM {role}");
    execute(&mut admin, &revoke).await;
    let team = of(BrokerKind::Nats, database.served_by(&role)).await;
    let node = team.node("node").await;
    let missing = node.get("/readyz").await.json();
    let reasons = missing["reasons"].as_array().unwrap();
    let is_missing = |reason: &Value| reason["code"] == "privilege_missing";
    assert!(reasons.iter().any(is_missing), "{missing}");
    event_comes(&database, [&node, &node]).await;
    assert_eq!(team::sum(&[&node], LEADING).await, 0);
    migrate::grant(&owner, &role, Purpose::Serve).await.unwrap();
    leads(&node).await;
}

/// Servers may be upgraded before the schema.
#[tokio::test]
async fn in_the_schema_before_a_node_reads_by_itself_and_leads_after_migrate_up() {
    let database = Database::migrated_to(11).await;
    let team = of(BrokerKind::Nats, database).await;
    let node = team.node("node").await;
    event_comes(&team.database, [&node, &node]).await;
    assert_eq!(team::sum(&[&node], LEADING).await, 0);
    team.database.up().await;
    leads(&node).await;
    event_comes(&team.database, [&node, &node]).await;
}

/// The drain takes longer than a node stands back. Its row is gone, too.
#[tokio::test]
async fn a_node_that_drains_leads_no_more() {
    let team = Team::start(BrokerKind::Nats).await;
    let mut node = team
        .node_with("node", |config| {
            config.drain_clients_per_second = 1;
            config.drain_deadline_ms = 15_000;
        })
        .await;
    leads(&node).await;
    let log = team.database.log(1);
    let bob = add_user(&node.db().await).await;
    let mut clients = Vec::new();
    for _ in 0..15 {
        clients.push(node.connect(bob.id).await);
    }
    node.begin_stop();
    until("the lock to be free", async || {
        node.metric(LEADING).await == 0.0
    })
    .await;
    node.stopped().await.unwrap();
    assert_eq!(term(&log).await, 1);
    assert_eq!(log.nodes().await.unwrap(), []);
}
