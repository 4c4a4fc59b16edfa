//! Rolling upgrades: nodes of a made-up next version beside nodes of this one, under load.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hushnet_realtime::config::Config;
use hushnet_realtime::nodes::VERSION;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::team::{Team, follows, leads, next, sum, v1};
use crate::over_both;
use crate::support::{Client, Server, User, add_user, insert_message, soon, until};

/// The format of the messages that the leader writes.
const WRITTEN: &str = "hushnet_node_batch_version";
const NEXT: u8 = VERSION + 1;
/// Between two events.
const PACE: Duration = Duration::from_millis(4);

async fn node_of(team: &Team, name: &str, version: u8) -> Server {
    let change = |config: &mut Config| config.nodes.batch_version = Some(version);
    team.node_with(name, change).await
}

async fn writes(server: &Server, version: u8) {
    server.until_metric(WRITTEN, f64::from(version)).await;
}

/// A writer, and clients that read meanwhile.
struct Load {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<usize>,
    /// How many events were written, when that is known.
    written: watch::Sender<Option<usize>>,
    readers: Vec<JoinHandle<Vec<i64>>>,
}

impl Load {
    /// One of the clients is connected to each of these nodes.
    async fn begin(db: PgPool, nodes: &[&Server]) -> Self {
        let bob = add_user(&db).await;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(None));
        let mut readers = Vec::new();
        for node in nodes {
            let (client, _) = v1(node, bob.id, None).await;
            readers.push(tokio::spawn(read(client, written.subscribe())));
        }
        let writer = tokio::spawn(write(db, bob, Arc::clone(&stop)));
        Self {
            stop,
            writer,
            written,
            readers,
        }
    }

    /// Ends the load. Each client has got every event, in order.
    async fn end(self) {
        self.stop.store(true, Relaxed);
        let written = self.writer.await.unwrap();
        self.written.send_replace(Some(written));
        for reader in self.readers {
            let events = soon("a client to have every event", reader).await.unwrap();
            assert_eq!(events.len(), written);
            assert!(events.is_sorted(), "{events:?}");
        }
    }
}

async fn write(db: PgPool, user: User, stop: Arc<AtomicBool>) -> usize {
    let (mut written, mut pace) = (0, interval(PACE));
    while !stop.load(Relaxed) {
        pace.tick().await;
        insert_message(&db, None, &user, &user).await;
        written += 1;
    }
    written
}

/// The ids of the events, each once, as soon as there are so many as were written.
async fn read(mut client: Client, mut written: watch::Receiver<Option<usize>>) -> Vec<i64> {
    let (mut ids, mut known) = (Vec::new(), HashSet::new());
    loop {
        let all = Some(ids.len());
        tokio::select! {
            frame = next(&mut client) => {
                let id = frame["id"].as_i64().unwrap();
                ids.extend(known.insert(id).then_some(id));
            }
            _ = written.wait_for(|written| *written == all) => return ids,
        }
    }
}

over_both! {
    async fn the_leader_writes_what_the_oldest_live_node_reads(team: Team) {
        let first = node_of(&team, "first", NEXT).await;
        leads(&first).await;
        let second = node_of(&team, "second", NEXT).await;
        follows(&second).await;
        writes(&first, NEXT).await;

        let load = Load::begin(first.db().await, &[&first, &second]).await;
        let old = node_of(&team, "old", VERSION).await;
        writes(&first, VERSION).await;
        follows(&old).await;
        old.stopped_now().await;
        writes(&first, NEXT).await;
        load.end().await;
    }

    /// One after another is replaced by the next version, as an upgrade does. The clients of the node that is left stay.
    async fn nodes_are_upgraded_one_by_one_under_load(team: Team) {
        let (leader, follower) = team.pair().await;
        let left = node_of(&team, "left", VERSION).await;
        follows(&left).await;
        let load = Load::begin(leader.db().await, &[&left, &left]).await;

        follower.stopped_now().await;
        let second = node_of(&team, "second", NEXT).await;
        follows(&second).await;
        leader.stopped_now().await;
        let first = node_of(&team, "first", NEXT).await;
        until("one node to lead and two to follow", async || {
            let all = [&first, &second, &left];
            sum(&all, "hushnet_node_leading").await == 1
                && sum(&all, "hushnet_node_following").await == 2
        })
        .await;
        assert_eq!(sum(&[&first, &second, &left], WRITTEN).await, i64::from(VERSION));
        load.end().await;

        left.stopped_now().await;
        until("the next format to be written", async || {
            sum(&[&first, &second], WRITTEN).await == i64::from(NEXT)
        })
        .await;
    }
}
