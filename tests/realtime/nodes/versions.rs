//! Rolling upgrades: nodes of a made-up next version beside nodes of this one, under load.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hushnet_realtime::config::Config;
use hushnet_realtime::nodes::VERSION;
use hushnet_testkit::client::{self, SUBPROTOCOL_HEADER};
use hushnet_testkit::server::Server as Process;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};
use uuid::Uuid;

use super::next_version::NEXT;
use super::team::{Team, follows, leads};
use crate::over_both;
use crate::schema::assert_valid_frame;
use crate::support::{Client, Server, User, add_user, insert_message, soon, until};

/// The format of the messages that the leader writes.
const WRITTEN: &str = "hushnet_node_batch_version";
/// Between two events.
const PACE: Duration = Duration::from_millis(4);
/// Before a client tries the next node.
const RETRY: Duration = Duration::from_millis(20);

async fn node_of(team: &Team, name: &str, version: u8) -> Server {
    let change = |config: &mut Config| config.nodes.batch_version = Some(version);
    team.node_with(name, change).await
}

async fn writes(server: &Server, version: u8) {
    server.until_metric(WRITTEN, f64::from(version)).await;
}

/// Until one of these programs leads, in this format, and the others follow.
async fn lead_in(nodes: &[&Process], version: u8) {
    let sum = async |series| {
        let mut sum = 0.0;
        for node in nodes {
            sum += node.metric(series).await;
        }
        format!("{sum:.0}")
    };
    let others = nodes.len() - 1;
    until(
        &format!("one node to lead in format {version}"),
        async || {
            sum("hushnet_node_leading").await == "1"
                && sum("hushnet_node_following").await == others.to_string()
                && sum(WRITTEN).await == version.to_string()
        },
    )
    .await;
}

/// Ends a program as a service manager does.
async fn terminate(mut node: Process) {
    node.program.signal("TERM").await;
    assert!(node.program.ended().await.success());
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
    /// One client begins at each of these nodes.
    async fn begin(db: PgPool, nodes: &[SocketAddr]) -> Self {
        let bob = add_user(&db).await;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(None));
        let mut readers = Vec::new();
        for first in 0..nodes.len() {
            let mut reader = Reader {
                user: bob.id,
                nodes: nodes.to_vec(),
                next: first,
                cursor: None,
                ids: Vec::new(),
                known: HashSet::new(),
            };
            let mut client = reader.connect().await;
            reader.take(&client.next_json().await);
            readers.push(tokio::spawn(reader.read(client, written.subscribe())));
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

/// A client that goes to the next node with its cursor when its node ends.
struct Reader {
    user: Uuid,
    nodes: Vec<SocketAddr>,
    /// The node that it tries next.
    next: usize,
    cursor: Option<String>,
    /// The ids of the events, each once.
    ids: Vec<i64>,
    known: HashSet<i64>,
}

impl Reader {
    /// A connection to the first node that takes it.
    async fn connect(&mut self) -> Client {
        loop {
            let node = self.nodes[self.next % self.nodes.len()];
            self.next += 1;
            let since = self.cursor.iter().map(|cursor| format!("&since={cursor}"));
            let url = format!(
                "ws://{node}/ws?user_id={}{}",
                self.user,
                since.collect::<String>()
            );
            let request = client::request(&url, &[(SUBPROTOCOL_HEADER, "hushnet.v1")]);
            match Client::connect(request, None, assert_valid_frame).await {
                Ok((client, _)) => return client,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// The ids of the events, as soon as there are so many as were written.
    async fn read(
        mut self,
        first: Client,
        mut written: watch::Receiver<Option<usize>>,
    ) -> Vec<i64> {
        let mut client = first;
        loop {
            let all = Some(self.ids.len());
            let text = tokio::select! {
                text = client.try_next_text() => text,
                _ = written.wait_for(|written| *written == all) => return self.ids,
            };
            match text {
                Ok(text) => self.take(&serde_json::from_str(&text).unwrap()),
                Err(_) => client = self.connect().await,
            }
        }
    }

    fn take(&mut self, frame: &Value) {
        match frame["type"].as_str().unwrap() {
            "message" => {
                let id = frame["id"].as_i64().unwrap();
                self.ids.extend(self.known.insert(id).then_some(id));
            }
            // The user has just been added, and its device is an event too.
            "hello" | "cursor" | "goaway" | "device" => {}
            other => panic!("unexpected {other}: {frame}"),
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
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

        let load = Load::begin(first.db().await, &[first.address(), second.address()]).await;
        let old = node_of(&team, "old", VERSION).await;
        writes(&first, VERSION).await;
        follows(&old).await;
        old.stopped_now().await;
        writes(&first, NEXT).await;
        load.end().await;
    }

    /// Each program of this version is replaced by one of the next, at its address, as an upgrade does.
    async fn programs_are_upgraded_one_by_one_under_load(team: Team) {
        let first = team.process("first").await;
        let second = team.process("second").await;
        let third = team.process("third").await;
        lead_in(&[&first, &second, &third], VERSION).await;
        let addresses = [&first, &second, &third].map(Process::address);
        let load = Load::begin(team.database.pool().await, &addresses).await;

        terminate(second).await;
        let second = team.process_of_next_version("second", addresses[1]).await;
        lead_in(&[&first, &second, &third], VERSION).await;
        terminate(first).await;
        let first = team.process_of_next_version("first", addresses[0]).await;
        lead_in(&[&first, &second, &third], VERSION).await;
        terminate(third).await;
        lead_in(&[&first, &second], NEXT).await;
        let third = team.process_of_next_version("third", addresses[2]).await;
        lead_in(&[&first, &second, &third], NEXT).await;
        load.end().await;
    }
}
