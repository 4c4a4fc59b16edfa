//! One transaction of very many events, against the program in a process of its own: its memory stays under the bound
//! that it prints, nobody is reset, the listener is not rebuilt, what was committed behind follows in order, and
//! `/readyz` stays green.
//!
//! `make burst` runs it with eight million events.

use std::net::SocketAddr;
use std::time::Duration;

use hushnet_realtime::config::Ingest;
use hushnet_testkit::client::{self, SUBPROTOCOL_HEADER};
use hushnet_testkit::http;
use hushnet_testkit::program::command;
use hushnet_testkit::server::Server;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{Client, Database, User, add_chat, add_user, insert_message};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");
/// Set by `make burst`: events of the transaction.
const EVENTS_VARIABLE: &str = "BURST_EVENTS";
const EVENTS: usize = 200_000;
/// Users to whom the events go in turn.
const USERS: usize = 40;
/// Those of them that are connected. One more user is connected and gets nothing of the burst.
const CONNECTED: usize = 2;
/// The bound on memory is near to what the burst takes, and the replay buffer holds a small part of it.
const SETTINGS: [&str; 2] = ["--connections-max=16", "--recent-bytes-max=1048576"];
/// A burst that takes longer has been reported: a barrier was sent within a second and missed within two more, and a
/// read is long after one.
const REPORTED_AFTER: Duration = Duration::from_secs(8);
/// All bursts would share the notification queue of their cluster.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
const PROBE_PAUSE: Duration = Duration::from_millis(10);

fn events() -> usize {
    let named = std::env::var(EVENTS_VARIABLE).ok();
    named.map_or(EVENTS, |number| number.parse().expect("a number of events"))
}

async fn memory_ceiling_bytes() -> u64 {
    let mut command = command(PROGRAM);
    let printing = command.args(["serve", "--print-config"]).args(SETTINGS);
    let output = printing.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let bytes = text
        .lines()
        .find_map(|line| line.strip_prefix("# memory_ceiling_bytes = "));
    bytes.unwrap().parse().unwrap()
}

/// The most memory that the process has had resident.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() << 10
}

async fn connect(server: SocketAddr, user: Uuid) -> Client {
    let request = client::request(
        &format!("ws://{server}/ws?user_id={user}"),
        &[(SUBPROTOCOL_HEADER, "hushnet.v1")],
    );
    let (mut client, _) = Client::connect(request, None, |_| {}).await.unwrap();
    client.until_type("hello").await;
    client
}

/// Inserts messages without a chat for these users in turn, in one transaction.
async fn commit_burst(pool: &PgPool, events: usize, users: &[User]) {
    let (ids, devices): (Vec<_>, Vec<_>) =
        users.iter().map(|user| (user.id, user.device_id)).unzip();
    let insert = format!(
        "INSERT INTO messages (logical_msg_id, from_user_id, from_device_id, to_user_id, to_device_id, header,
                               ciphertext)
         SELECT 'm', $1[i], $2[i], $1[i], $2[i], '{{}}', 'c'
         FROM generate_series(0, {events} - 1) AS n, LATERAL (SELECT n % {users} + 1 AS i) AS of",
        users = users.len()
    );
    let insert = sqlx::query(AssertSqlSafe(insert)).bind(ids).bind(devices);
    insert.execute(pool).await.unwrap();
}

/// Reads up to the event that has a chat, which was committed behind the burst. Returns how many came before it in the
/// order of their ids. One that comes again is dropped, as every client does.
async fn read_burst(mut client: Client) -> usize {
    let (mut count, mut last_id) = (0, i64::MIN);
    loop {
        let frame = client.next_json().await;
        match frame["type"].as_str() {
            Some("message") => {}
            Some("cursor") => continue,
            _ => panic!("{frame}"),
        }
        let id = frame["id"].as_i64().unwrap();
        if id <= last_id {
            continue;
        }
        last_id = id;
        if !frame["chat_id"].is_null() {
            return count;
        }
        count += 1;
    }
}

/// Asks `/readyz` until it is told to end. Each answer must be green. Returns whether one said `catching_up`.
async fn probe(server: SocketAddr, ending: watch::Receiver<bool>) -> bool {
    let mut is_catching_up = false;
    while !*ending.borrow() {
        let answer = http::get(server, "/readyz").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let reasons = body["reasons"].as_array().unwrap();
        is_catching_up |= reasons.iter().any(|reason| reason["code"] == "catching_up");
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    is_catching_up
}

async fn withstand(ingest: Ingest) {
    let _turn = ONE_AT_A_TIME.lock().await;
    let database = Database::with_many_notifications().await;
    let pool = database.pool().await;
    let mut users = Vec::new();
    for _ in 0..=USERS {
        users.push(add_user(&pool).await);
    }
    let (witness, users) = users.split_last().unwrap();
    let mut command = command(PROGRAM);
    command
        .args(["serve", "--listen=127.0.0.1:0", "--log=warn"])
        .args(["--ingest", ingest.as_str()])
        .args(SETTINGS)
        .args(["--database-url", &database.url]);
    let server = Server::start(&mut command).await;
    server.until_ready().await;
    let connected: Vec<&User> = users.iter().take(CONNECTED).chain([witness]).collect();
    let mut reading = JoinSet::new();
    for (index, user) in connected.iter().enumerate() {
        let client = connect(server.address(), user.id).await;
        reading.spawn(async move { (index, read_burst(client).await, Instant::now()) });
    }
    let chat = add_chat(&pool, witness, &users[0]).await;
    let (end, ending) = watch::channel(false);
    let probing = tokio::spawn(probe(server.address(), ending));

    let events = events();
    commit_burst(&pool, events, users).await;
    let (committed, mut routed) = (Instant::now(), Duration::ZERO);
    for user in &connected {
        insert_message(&pool, Some(chat), user, user).await;
    }
    while let Some(read) = reading.join_next().await {
        let (index, count, ended) = read.unwrap();
        let expected = if index < CONNECTED {
            (index..events).step_by(USERS).count()
        } else {
            routed = ended - committed;
            0
        };
        assert_eq!(count, expected, "client {index}");
    }

    end.send(true).unwrap();
    let is_catching_up = probing.await.unwrap();
    assert!(is_catching_up || routed < REPORTED_AFTER, "{routed:?}");
    let metrics = http::get(server.address(), "/metrics").await.unwrap().body;
    let resets = metrics
        .lines()
        .filter(|line| line.starts_with("hushnet_resets_total{"));
    assert!(resets.clone().count() > 0);
    assert!(resets.clone().all(|line| line.ends_with(" 0")), "{metrics}");
    let reconnects = "hushnet_listener_reconnects_total";
    assert!(server.metric(reconnects).await < 1.0, "it was rebuilt");
    let (peak, ceiling) = (
        peak_bytes(server.program.pid()),
        memory_ceiling_bytes().await,
    );
    println!(
        "{}: {events} events in {routed:?}, {} of {} MiB",
        ingest.as_str(),
        peak >> 20,
        ceiling >> 20
    );
    assert!(peak < ceiling, "{peak} of {ceiling}");
    server.program.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_of_very_many_events_that_notify() {
    withstand(Ingest::Notify).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_of_very_many_events_that_wakes_the_server() {
    withstand(Ingest::Adaptive).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_of_very_many_events_that_are_read_from_the_log() {
    withstand(Ingest::Tail).await;
}
