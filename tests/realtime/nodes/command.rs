//! The list of the nodes, by `hushnet-realtime nodes` and in the console, and that the leader steps down when it is asked to.

use hushnet_devbus::BrokerKind;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::team::{Team, follows, ids, leads, v1};
use crate::cli::{outcome, program};
use crate::support::{Database, User, add_user, insert_message, until};

/// Exit code and both outputs of the command on this database.
async fn nodes(database: &Database, arguments: &[&str]) -> (i32, String) {
    let all = ["nodes", "--database-url", &database.url];
    let (code, output, error) = outcome(&mut program(&[&all, arguments].concat())).await;
    (code, output + &error)
}

/// The columns of the node of this name: role, version, term, connections and shards.
async fn listed(database: &Database, name: &str) -> Vec<String> {
    let (code, output) = nodes(database, &[]).await;
    assert_eq!(code, 0, "{output}");
    let mut lines = output.lines().map(|line| line.split_whitespace());
    let of_name = lines.find_map(|mut cells| (cells.next() == Some(name)).then_some(cells));
    of_name.map_or(Vec::new(), |cells| {
        cells.take(5).map(str::to_owned).collect()
    })
}

async fn until_listed(database: &Database, name: &str, wanted: [&str; 5]) {
    until(&format!("{name} to be listed as {wanted:?}"), async || {
        listed(database, name).await == wanted
    })
    .await;
}

async fn send(db: &PgPool, bob: &User, times: usize) {
    for _ in 0..times {
        insert_message(db, None, bob, bob).await;
    }
}

#[tokio::test]
async fn nodes_are_listed_and_the_leader_steps_down_without_losing_an_event() {
    let team = Team::start(BrokerKind::Redis).await;
    let (code, output) = nodes(&team.database, &[]).await;
    assert!(
        code == 0 && output.contains("no node in the last minute"),
        "{output}"
    );
    let (code, output) = nodes(&team.database, &["step-down"]).await;
    assert!(
        code == 1 && output.contains("no node has been elected"),
        "{output}"
    );

    let (leader, follower) = team.pair().await;
    let db = leader.db().await;
    let bob = add_user(&db).await;
    let (mut client, _) = v1(&follower, bob.id, None).await;
    let version = env!("CARGO_PKG_VERSION");
    let leads_in = |term| ["leader", version, term, "0", "all"];
    until_listed(&team.database, "leader", leads_in("1")).await;
    until_listed(
        &team.database,
        "follower",
        ["follower", version, "1", "1", "1"],
    )
    .await;

    send(&db, &bob, 3).await;
    let ((code, output), ()) =
        tokio::join!(nodes(&team.database, &["step-down"]), send(&db, &bob, 20));
    assert_eq!((code, output.trim()), (0, "follower leads now (term 2)"));
    leads(&follower).await;
    follows(&leader).await;
    send(&db, &bob, 3).await;
    let events = ids(&mut client, 26).await;
    assert!(events.is_sorted_by(|a, b| a < b), "{events:?}");
    until_listed(
        &team.database,
        "follower",
        ["leader", version, "2", "1", "all"],
    )
    .await;

    leader.stopped_now().await;
    let (code, output) = nodes(&team.database, &["step-down"]).await;
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("follower leads, and there is no other live node"),
        "{output}"
    );
    leads(&follower).await;
}

#[tokio::test]
async fn nodes_of_one_name_are_told_apart() {
    let team = Team::start(BrokerKind::Redis).await;
    let (_first, _second) = (team.node("twin").await, team.node("twin").await);
    until("both to be listed by their ids", async || {
        let (code, output) = nodes(&team.database, &[]).await;
        assert_eq!(code, 0, "{output}");
        let names = output
            .lines()
            .filter_map(|line| line.strip_prefix("twin ("));
        let ids: std::collections::HashSet<_> = names.map(|rest| &rest[..8]).collect();
        ids.len() == 2
    })
    .await;
}

#[tokio::test]
async fn a_schema_without_nodes_is_said() {
    let database = Database::migrated_to(11).await;
    for arguments in [&[][..], &["step-down"]] {
        let (code, output) = nodes(&database, arguments).await;
        assert!(
            code == 1 && output.contains("run `hushnet-realtime migrate up`"),
            "{output}"
        );
    }
}

#[tokio::test]
async fn the_console_has_the_nodes() {
    let team = Team::start(BrokerKind::Redis).await;
    let shown = team.node_with("shown", |config| config.edge.console = Some(true));
    let shown = shown.await;
    leads(&shown).await;
    let follower = team.node("follower").await;
    follows(&follower).await;
    let bob = add_user(&shown.db().await).await;
    let (_client, _) = v1(&follower, bob.id, None).await;
    let path = format!("/console/nodes?user_id={}", bob.id);
    until("both to be listed", async || {
        let answer = shown.get(&path).await;
        assert_eq!(answer.status, 200);
        let nodes = answer.json()["nodes"].clone();
        let rows = nodes.as_array().unwrap().iter();
        let rows = rows.map(|node| {
            assert!(
                node["lag_ms"].is_u64() && node["seen_ms"].is_u64(),
                "{node}"
            );
            let names = ["name", "role", "version", "term", "connections", "shards"];
            Value::from_iter(names.map(|name| node[name].clone()))
        });
        let version = env!("CARGO_PKG_VERSION");
        rows.collect::<Value>()
            == json!([
                ["follower", "follower", version, 1, 1, 1],
                ["shown", "leader", version, 1, 0, null]
            ])
    })
    .await;
    assert_eq!(shown.get("/console/nodes?user_id=nobody").await.status, 400);
}
