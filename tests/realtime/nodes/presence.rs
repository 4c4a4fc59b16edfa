//! The rows of the nodes in PostgreSQL.

use std::time::Duration;

use hushnet_realtime::store::{Log, NodeRow, NodeState, Role};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::support::{Database, execute};

fn node(name: &str) -> NodeState {
    NodeState {
        node: Uuid::new_v4(),
        name: name.to_owned(),
        batch_version: 1,
        role: Role::Follower,
        run: None,
        received: false,
        shards: 3,
        connections: 5,
        lag: Duration::from_millis(700),
    }
}

/// Writes the row, as a node whose name nobody else has.
async fn announce(log: &Log, node: &NodeState) {
    assert_eq!(log.announce(node).await.unwrap(), None);
}

async fn only_row(log: &Log) -> NodeRow {
    let mut rows = log.nodes().await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// As if the row of this node had been written so many seconds earlier.
async fn age(owner: &mut PgConnection, node: &NodeState, seconds: u32) {
    let age = format!(
        "UPDATE realtime.nodes SET seen_at = seen_at - interval '{seconds} seconds',
                received_at = received_at - interval '{seconds} seconds' WHERE node = '{}'",
        node.node
    );
    execute(owner, &age).await;
}

#[tokio::test]
async fn a_node_s_row_says_what_it_is_and_how_long_ago() {
    let database = Database::migrated().await;
    let (log, mut owner) = (database.log(1), database.connect().await);
    let mut state = node("a");
    announce(&log, &state).await;
    let row = only_row(&log).await;
    assert_eq!((row.node, &*row.name), (state.node, "a"));
    assert_eq!(row.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((row.batch_version, row.role), (1, Role::Follower));
    assert_eq!((row.shards, row.connections), (3, 5));
    assert_eq!(row.lag, state.lag);
    assert_eq!((row.run, row.received_age), (None, None));

    (state.run, state.received) = (Some(u64::MAX - 1), true);
    announce(&log, &state).await;
    age(&mut owner, &state, 30).await;
    let row = only_row(&log).await;
    let old = Duration::from_secs(30);
    assert_eq!(row.run, Some(u64::MAX - 1));
    assert!(row.seen_age >= old && row.received_age.unwrap() >= old);

    // Nothing was received since, and the row is written.
    (state.received, state.role) = (false, Role::Leader);
    announce(&log, &state).await;
    let row = only_row(&log).await;
    assert_eq!(row.role, Role::Leader);
    assert!(row.seen_age < row.received_age.unwrap());
    assert!(row.received_age.unwrap() >= old);

    // Of another run nothing was received at all.
    state.run = Some(2);
    announce(&log, &state).await;
    let row = only_row(&log).await;
    assert_eq!((row.run, row.received_age), (Some(2), None));

    log.leave(Uuid::new_v4()).await.unwrap();
    assert_eq!(only_row(&log).await.node, state.node);
    log.leave(state.node).await.unwrap();
    assert_eq!(log.nodes().await.unwrap(), []);
}

#[tokio::test]
async fn another_live_node_of_the_same_name_is_found() {
    let database = Database::migrated().await;
    let (log, mut owner) = (database.log(1), database.connect().await);
    let (first, second, third) = (node("same"), node("same"), node("other"));
    announce(&log, &first).await;
    announce(&log, &third).await;
    assert_eq!(log.announce(&second).await.unwrap(), Some(first.node));
    assert_eq!(log.announce(&first).await.unwrap(), Some(second.node));
    // It is not live any more.
    age(&mut owner, &second, 7).await;
    announce(&log, &first).await;
    assert_eq!(log.nodes().await.unwrap().len(), 3);
}

#[tokio::test]
async fn rows_that_were_not_written_for_a_minute_are_deleted_and_no_node_waits_for_another() {
    let database = Database::migrated().await;
    let (log, mut owner) = (database.log(1), database.connect().await);
    let (gone, left, stays, own) = (node("gone"), node("left"), node("stays"), node("own"));
    for node in [&gone, &left, &stays, &own] {
        announce(&log, node).await;
    }
    age(&mut owner, &gone, 61).await;
    age(&mut owner, &left, 61).await;
    age(&mut owner, &stays, 50).await;
    // A session that holds the row, as one does that deletes it.
    let mut holder = database.connect().await;
    let hold = "BEGIN; SELECT FROM realtime.nodes WHERE name = 'left' FOR UPDATE";
    execute(&mut holder, hold).await;
    announce(&log, &own).await;
    let names = async || {
        let rows = log.nodes().await.unwrap();
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["left", "own", "stays"]);
    execute(&mut holder, "ROLLBACK").await;
    announce(&log, &own).await;
    assert_eq!(names().await, ["own", "stays"]);
    // A node that was away for longer writes its own row again.
    age(&mut owner, &own, 300).await;
    announce(&log, &own).await;
    assert_eq!(names().await, ["own", "stays"]);
}
