//! Large events and clients that do not read, against the program in a process of its own: what it holds of them is
//! bounded, whoever else is sent events is, and those that read again get them all.

use std::net::SocketAddr;

use hushnet_realtime::config::Ingest;
use hushnet_testkit::client::{self, SUBPROTOCOL_HEADER};
use hushnet_testkit::program::command;
use hushnet_testkit::server::Server;
use serde_json::Value;
use uuid::Uuid;

use super::TABLES;
use crate::support::{Client, Database, execute};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");
/// Clients that do not read, each of a user of its own.
const SLOW: u128 = 3;
/// For each of them, of a mebibyte each.
const EVENTS: i64 = 64;
const BODY_BYTES: usize = (1 << 20) - 1_000;
/// All events together have more than twice as much.
const GROWTH_MAX: u64 = 100 << 20;

async fn connect(server: SocketAddr, user: Uuid) -> Client {
    let url = format!("ws://{server}/ws?user_id={user}");
    let request = client::request(&url, &[(SUBPROTOCOL_HEADER, "hushnet.v1")]);
    let (mut client, _) = Client::connect(request, None, |_| {}).await.unwrap();
    client.until_type("hello").await;
    client
}

fn bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() << 10
}

/// Reads all events of a mebibyte, in the order of their keys.
async fn read_all(client: &mut Client) {
    let mut next = 0;
    while next < EVENTS {
        let text = client.next_text().await;
        let event: Value = serde_json::from_str(&text).unwrap();
        if event["type"] == "note" {
            assert_eq!(event["key"]["id"], next);
            assert_eq!(event["row"]["body"].as_str().unwrap().len(), BODY_BYTES);
            next += 1;
        }
    }
}

async fn withstand(ingest: Ingest) {
    let database = Database::migrated().await;
    let mut owner = database.connect().await;
    execute(&mut owner, TABLES).await;
    let mut command = command(PROGRAM);
    command
        .args(["serve", "--listen=127.0.0.1:0", "--log=warn"])
        .args(["--ingest", ingest.as_str(), "--write-timeout-ms=600000"])
        .args(["--pong-timeout-ms=600000"])
        .args(["--database-url", &database.url]);
    let server = Server::start(&mut command).await;
    server.until_ready().await;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        slow.push(connect(server.address(), Uuid::from_u128(number)).await);
    }
    let reader = Uuid::from_u128(SLOW);
    let mut reading = connect(server.address(), reader).await;
    let before = bytes(server.program.pid(), "VmRSS:");
    for id in 0..EVENTS {
        let insert = format!(
            "INSERT INTO notes SELECT {id}, n::text, lpad(to_hex(n), 32, '0')::uuid, repeat('x', {BODY_BYTES})
             FROM generate_series(0, {SLOW}) AS n"
        );
        execute(&mut owner, &insert).await;
    }
    read_all(&mut reading).await;
    let grown = bytes(server.program.pid(), "VmHWM:").saturating_sub(before);
    println!("{}: {} MiB", ingest.as_str(), grown >> 20);
    assert!(grown < GROWTH_MAX, "{grown}");
    for client in &mut slow {
        read_all(client).await;
    }
    let grown = bytes(server.program.pid(), "VmHWM:").saturating_sub(before);
    println!("{}: {} MiB in all", ingest.as_str(), grown >> 20);
    assert!(grown < GROWTH_MAX, "{grown}");
    server.program.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_that_notify_and_clients_that_do_not_read() {
    withstand(Ingest::Notify).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_events_that_are_read_from_the_log_and_clients_that_do_not_read() {
    withstand(Ingest::Tail).await;
}
