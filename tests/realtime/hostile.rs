//! Hostile clients against the program itself, in a process of its own: whatever they do, the others get
//! their events, its memory stays within bounds, and nothing of them is left over.
//!
//! They come from another address of this machine than the others. Latencies are printed, not judged:
//! attackers, server and clients share the machine here.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use uuid::Uuid;

use self::attacks::Attack;
use crate::support::{Client, Database, User, add_user, insert_message, soon, until};

mod attacks;

/// Others that want nothing but their events.
const HONEST: usize = 8;
/// Events to them in each phase.
const EVENTS: usize = 150;
/// What the program may have in memory: the honest ones and what is built in take 60 MB of it here, and
/// each of the attackers' connections may have a frame, a batch and their buffers.
const RESIDENT_BYTES_MAX: u64 = (60 << 20) + attacks::CONNECTIONS as u64 * (256 << 10);

struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    async fn start(database: &Database) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hushnet-realtime"))
            .args(["serve", "--listen=127.0.0.1:0", "--unlimited-addresses="])
            .args([
                "--connections-per-address-max=150",
                "--connections-per-second-per-address=400",
            ])
            .args(["--request-head-timeout-ms=1000", "--write-timeout-ms=1000"])
            .arg("--log=error")
            .args(["--database-url", &database.url])
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("its address", lines.next_line())
            .await
            .unwrap()
            .unwrap();
        let address = line.rsplit('/').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    async fn connect(&self, user_id: Uuid) -> Client {
        let url = format!("ws://{}/ws?user_id={user_id}", self.address);
        let connecting = tokio_tungstenite::connect_async(url);
        let (socket, _) = soon("a connection", connecting).await.unwrap();
        Client { socket }
    }

    async fn metric(&self, series: &str) -> f64 {
        let url = format!("http://{}/metrics", self.address);
        let text = soon("metrics", reqwest::get(url))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("no {series}"))
            .parse()
            .unwrap()
    }

    fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().expect("it has ended"));
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib << 10
    }
}

/// That its device was added may come in between.
async fn until_type(client: &mut Client, wanted: &str) {
    loop {
        let frame = client.next_json().await;
        if frame["type"] == wanted {
            return;
        }
        assert_eq!(frame["type"], "device");
    }
}

/// One event after another, each to the next of the honest: how long each took from before its INSERT.
async fn deliver(pool: &sqlx::PgPool, honest: &mut [(User, Client)]) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..EVENTS {
        let place = number % honest.len();
        let (user, client) = &mut honest[place];
        let begun = Instant::now();
        insert_message(pool, None, user, user).await;
        until_type(client, "message").await;
        took.push(begun.elapsed());
    }
    took.sort();
    took
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

async fn withstand(attacks: &[Attack]) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let database = Database::migrated().await;
    let service = Service::start(&database).await;
    let pool = database.pool().await;
    until("it is ready", async || {
        let ready = reqwest::get(format!("http://{}/readyz", service.address)).await;
        ready.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let mut honest = Vec::new();
    for _ in 0..HONEST {
        let user = add_user(&pool).await;
        let mut client = service.connect(user.id).await;
        client.send(r#"{"type":"ping"}"#).await;
        until_type(&mut client, "pong").await;
        honest.push((user, client));
    }
    let calm = p99(&deliver(&pool, &mut honest).await);
    for attack in attacks {
        let under = attack.begin(service.address);
        let attacked = p99(&deliver(&pool, &mut honest).await);
        let resident = service.resident_bytes();
        let tried = under.end().await;
        println!(
            "{attack:?}: {tried} attempts; p99 {calm:?} before, {attacked:?} under it; {} MiB",
            resident >> 20
        );
        assert!(tried > 0, "{attack:?} did nothing");
        assert!(
            resident < RESIDENT_BYTES_MAX,
            "{attack:?}: {resident} bytes"
        );
        until("nothing of them is left over", async || {
            service.metric("hushnet_connections_open").await < HONEST as f64 + 0.5
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_do_not_come_or_never_end() {
    withstand(&[
        Attack::SilentConnections,
        Attack::SlowHead,
        Attack::EndlessHead,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_an_address_may_have() {
    withstand(&[Attack::TooManyConnections]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none() {
    withstand(&[
        Attack::Unmasked,
        Attack::ReservedBits,
        Attack::ReservedOpcode,
        Attack::InvalidUtf8,
        Attack::Compressed,
        Attack::Oversized,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_never_end_or_never_stop() {
    withstand(&[
        Attack::HalfFrame,
        Attack::EndlessFragments,
        Attack::PingFlood,
        Attack::NeverReads,
        Attack::HalfClosed,
    ])
    .await;
}
