//! Hostile clients against the program, in a process of its own. Whatever they do, honest clients get their
//! events, the program's memory stays within its budget, and no connection of the attackers is left over.
//!
//! The attackers connect from another address of this machine and run in a process of their own. In `make
//! test`, where all processes share the cores, the honest clients' latencies are printed and not judged.
//! `make hostile` judges them: the server has one core for itself, and the attackers run on the other core
//! when it is idle. There the events come through the server's injector, because PostgreSQL would share its
//! core with the attackers.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use uuid::Uuid;

use self::attacks::{Attack, Awake, Underway};
use crate::support::{Client, Database, User, add_user, insert_message, soon, until};

mod attacks;

/// Honest clients: they only read their events.
const HONEST: usize = 8;
/// Events to the honest clients in each phase.
const EVENTS: usize = 150;
/// The same where latencies are judged, and the time between two events.
const EVENTS_JUDGED: usize = 400;
const EVENTS_INTERVAL: Duration = Duration::from_millis(5);
/// Set by `make hostile`: the rounds of each attack. A round without an attack precedes each.
const ROUNDS_VARIABLE: &str = "HOSTILE_ROUNDS";
/// Set by `make hostile`: the program, an optimized one with the injector.
const PROGRAM_VARIABLE: &str = "HOSTILE_PROGRAM";
/// The honest clients' 99th percentile under an attack, divided by the one before it: median of the rounds.
const P99_RATIO_MAX: f64 = 2.0;
/// The rounds are repeated up to this many times before the ratio is judged too high.
const ROUNDS_FACTOR_MAX: usize = 3;
/// The limits that the attackers meet.
const SETTINGS: [&str; 8] = [
    "--unlimited-addresses=",
    "--connections-max=200",
    "--connections-per-address-max=150",
    "--connections-per-second-per-address=400",
    "--request-head-timeout-ms=1000",
    "--write-timeout-ms=1000",
    // The honest clients answer pings only when it is their turn to read.
    "--pong-timeout-ms=600000",
    "--recent-bytes-max=1048576",
];

struct Service {
    child: Child,
    address: SocketAddr,
    /// Takes the events where latencies are judged.
    injector: Option<TcpStream>,
    /// The memory budget that the program prints for these settings.
    memory_ceiling_bytes: u64,
}

impl Service {
    async fn start(database: &Database) -> Self {
        let judged = judged_rounds().is_some();
        let mut command = Command::new(program());
        if judged {
            command = Command::new("taskset");
            command.args(["--cpu-list", "0"]).arg(program());
        }
        command
            .args(["serve", "--listen=127.0.0.1:0", "--log=error"])
            .args(SETTINGS)
            .args(["--database-url", &database.url])
            .env_remove("DATABASE_URL");
        if judged {
            command.arg("--inject=127.0.0.1:0");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut after = async |prefix: &str| -> SocketAddr {
            loop {
                let line = soon(prefix, lines.next_line()).await.unwrap().unwrap();
                if let Some(address) = line.strip_prefix(prefix) {
                    return address.parse().unwrap();
                }
            }
        };
        let address = after("serving on http://").await;
        let injector = if judged {
            let injector = TcpStream::connect(after("injecting on ").await);
            Some(injector.await.unwrap())
        } else {
            None
        };
        Self {
            child,
            address,
            injector,
            memory_ceiling_bytes: memory_ceiling_bytes().await,
        }
    }

    async fn connect(&self, user_id: Uuid) -> Client {
        let url = format!("ws://{}/ws?user_id={user_id}", self.address);
        let connecting = tokio_tungstenite::connect_async(url);
        let (socket, _) = soon("a connection", connecting).await.unwrap();
        crate::support::client_on(socket)
    }

    async fn metric(&self, series: &str) -> f64 {
        let url = format!("http://{}/metrics", self.address);
        let mut text = String::new();
        // A request whose head comes too late is closed: on a busy machine that may be this one's.
        until("metrics", async || {
            let Ok(answer) = reqwest::get(&url).await else {
                return false;
            };
            text = answer.text().await.unwrap_or_default();
            !text.is_empty()
        })
        .await;
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

fn program() -> OsString {
    let named = std::env::var_os(PROGRAM_VARIABLE);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_hushnet-realtime").into())
}

fn judged_rounds() -> Option<usize> {
    let rounds = std::env::var(ROUNDS_VARIABLE).ok()?;
    Some(rounds.parse().expect("a number of rounds"))
}

async fn memory_ceiling_bytes() -> u64 {
    let mut command = Command::new(program());
    command.args(["serve", "--print-config"]).args(SETTINGS);
    let output = command.env_remove("DATABASE_URL").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let bytes = text
        .lines()
        .find_map(|line| line.strip_prefix("# memory_ceiling_bytes = "));
    bytes.unwrap().parse().unwrap()
}

/// Sends one event after another, each to the next honest client. Returns the time from before each event's
/// INSERT, or its injection, until its delivery.
async fn deliver(
    pool: &sqlx::PgPool,
    service: &mut Service,
    honest: &mut [(User, Client)],
) -> Vec<Duration> {
    let mut took = Vec::new();
    let events = service.injector.as_ref().map_or(EVENTS, |_| EVENTS_JUDGED);
    for number in 0..events {
        let place = number % honest.len();
        let (user, client) = &mut honest[place];
        if service.injector.is_some() {
            tokio::time::sleep(EVENTS_INTERVAL).await;
        }
        let begun = Instant::now();
        match &mut service.injector {
            Some(injector) => inject(injector, user.id).await,
            None => {
                insert_message(pool, None, user, user).await;
            }
        }
        client.until_type("message").await;
        took.push(begun.elapsed());
    }
    took
}

/// The payload is as HushNet's own trigger notifies it.
async fn inject(injector: &mut TcpStream, user_id: Uuid) {
    let chat_id = Uuid::new_v4();
    let line =
        format!(r#"{{"type" : "message", "chat_id" : "{chat_id}", "user_id" : "{user_id}"}}"#);
    injector
        .write_all(format!("{line}\n").as_bytes())
        .await
        .unwrap();
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

fn median(values: &[Duration]) -> Duration {
    let mut values = values.to_vec();
    values.sort();
    values[values.len() / 2]
}

async fn withstand(attacks: &[Attack]) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let database = Database::migrated().await;
    let mut service = Service::start(&database).await;
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
        client.until_type("pong").await;
        honest.push((user, client));
    }
    let _awake = judged_rounds().map(|_| Awake::keep());
    // Each round is compared with the calm just before it, and the median counts: now and then the machine
    // pauses, and some events of one round are late.
    let mut outcomes = vec![];
    for attack in attacks {
        let (mut calm, mut attacked, mut resident, mut tried) = (vec![], vec![], 0, 0);
        let rounds = judged_rounds().unwrap_or(1);
        loop {
            for _ in 0..rounds {
                calm.push(p99(deliver(&pool, &mut service, &mut honest).await));
                let under = Underway::begin(*attack, service.address).await;
                attacked.push(p99(deliver(&pool, &mut service, &mut honest).await));
                resident = resident.max(service.resident_bytes());
                tried += under.end().await;
                until("nothing of them is left over", async || {
                    service.metric("hushnet_connections_open").await < HONEST as f64 + 0.5
                })
                .await;
            }
            // A ratio that is too high after few rounds gets more rounds, and all of them count.
            let within = ratio(&attacked, &calm) <= P99_RATIO_MAX;
            if within || judged_rounds().is_none() || attacked.len() >= ROUNDS_FACTOR_MAX * rounds {
                break;
            }
        }
        assert!(tried > 0, "{attack:?} did nothing");
        let ceiling = service.memory_ceiling_bytes;
        assert!(resident < ceiling, "{attack:?}: {resident} of {ceiling}");
        let (ratio, mib) = (ratio(&attacked, &calm), resident >> 20);
        let (attacked, calm) = (median(&attacked), median(&calm));
        println!(
            "{attack:?}: {tried} attempts; p99 {attacked:?}, {calm:?} before; {ratio:.2}; {mib} MiB"
        );
        outcomes.push(ratio);
    }
    if judged_rounds().is_some() {
        let worst = outcomes.into_iter().fold(0.0, f64::max);
        assert!(worst <= P99_RATIO_MAX, "{worst:.2}");
    }
}

/// The median of the rounds' ratios.
fn ratio(attacked: &[Duration], calm: &[Duration]) -> f64 {
    let rounds = attacked.iter().zip(calm);
    let mut ratios: Vec<f64> = rounds
        .map(|(attacked, calm)| attacked.as_secs_f64() / calm.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_missing_or_never_end() {
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
async fn invalid_frames() {
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
        Attack::HoldsAll,
        Attack::EndlessFragments,
        Attack::PingFlood,
        Attack::NeverReads,
        Attack::HalfClosed,
    ])
    .await;
}
