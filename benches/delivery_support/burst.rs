//! One transaction of very many events.
//!
//! Each case starts a server of its own, connects its clients and commits one INSERT. Behind it each connected user
//! gets one event in a transaction of its own. Until every client has that event, `/readyz` is asked again and again.
//! An event that comes out of order, or not at all, counts as lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use hushnet_realtime::config::Ingest;
use hushnet_testkit::http;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Client, Frame, chat_id};
use super::report::{Report, Table, load_average, micros};
use super::stack::{
    Cpu, Messages, Stack, memory_ceiling, peak_memory, populate, start_server_with,
};

/// Users of the burst where it is spread.
const USERS: usize = 200;
/// Those of them that are connected in the case `some`.
const CONNECTED: usize = 20;
/// A connected user to whom nothing of the burst goes.
const WITNESS: usize = USERS;
/// Keeps the bound on memory near to what a burst takes.
const SETTINGS: [&str; 2] = ["--connections-max", "64"];
/// Between two questions to `/readyz`.
const PROBE_PAUSE: Duration = Duration::from_millis(50);
/// Without any event for so long, the rest is lost.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct Plan {
    pub(crate) ways: Vec<Ingest>,
    pub(crate) events: usize,
}

/// To whom the events of the burst go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// Users who are not connected.
    Absent,
    /// Many users, some of whom are connected.
    Some,
    /// One user, who is connected.
    One,
}

impl Spread {
    const ALL: [Self; 3] = [Self::Absent, Self::Some, Self::One];

    fn name(self) -> &'static str {
        match self {
            Self::Absent => "nobody",
            Self::Some => "some",
            Self::One => "one",
        }
    }

    fn users(self) -> usize {
        match self {
            Self::Absent | Self::Some => USERS,
            Self::One => 1,
        }
    }

    fn connected(self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Some => CONNECTED,
            Self::One => 1,
        }
    }
}

/// Runs every case; says how many events were lost.
pub(crate) async fn run(stack: &Stack, report: &mut Report, plan: &Plan) -> anyhow::Result<u64> {
    let before = load_average();
    let mut table = Table::new(&[
        "ingest",
        "connected",
        "events",
        "insert s",
        "events/s",
        "last s",
        "behind s",
        "peak MiB",
        "bound MiB",
        "lost",
        "again",
        "resets",
        "reconnects",
        "barrier s",
        "cpu server s",
        "readyz",
    ]);
    let (mut rows, mut lost) = (Vec::new(), 0);
    for way in &plan.ways {
        for spread in Spread::ALL {
            let outcome = measure(stack, plan.events, *way, spread).await;
            let outcome = outcome
                .with_context(|| format!("burst with {}, {}", way.as_str(), spread.name()))?;
            lost += outcome.lost;
            table.row(outcome.cells());
            rows.push(outcome.json());
        }
    }
    report.add("burst", &table, &rows, &before)?;
    println!(
        "  connected: which of the burst's users; insert: the transaction as its writer sees it; events/s: from its \
         commit until everything committed before the event behind it has been routed; last: from the commit until \
         the last client has the burst, behind: until every client has the event behind it; peak: the server's \
         resident memory at most, bound: what it printed; barrier: the greatest age of the last barrier; readyz: \
         answers by status and reasons"
    );
    Ok(lost)
}

struct Outcome {
    way: Ingest,
    spread: Spread,
    events: usize,
    insert: Duration,
    routed: Duration,
    last: Duration,
    behind: Duration,
    peak: u64,
    bound: u64,
    lost: u64,
    again: u64,
    resets: u64,
    reconnects: f64,
    barrier_age: f64,
    cpu: Duration,
    answers: BTreeMap<String, u64>,
}

/// What one client got.
#[derive(Default)]
struct Got {
    /// Events of the burst, each after the one before.
    in_order: usize,
    /// When the last of them came.
    last: Option<Instant>,
    /// When the event behind them came; `None` when it did not come, or not as the last.
    behind: Option<Instant>,
    resets: u64,
    /// Events that came again, which a client knows by their ids.
    again: u64,
}

async fn measure(
    stack: &Stack,
    events: usize,
    way: Ingest,
    spread: Spread,
) -> anyhow::Result<Outcome> {
    let database = format!("burst_{}_{}", way.as_str(), spread.name());
    let mut writer = stack.create(&database).await?;
    populate(&mut writer, USERS + 1, USERS + 1).await;
    let server = start_server_with(stack, &database, way, &SETTINGS).await;
    let bound = memory_ceiling(&SETTINGS).await?;
    let progress = Arc::new(AtomicU64::new(0));
    let mut receiving = JoinSet::new();
    let connected: Vec<usize> = (0..spread.connected()).chain([WITNESS]).collect();
    for user in &connected {
        let (client, _) = Client::connect(server.address(), chat_id(*user), None).await?;
        receiving.spawn(receive(*user, client, Arc::clone(&progress)));
    }
    let (end, ending) = watch::channel(false);
    let probing = tokio::spawn(probe(server.address(), ending));
    let cpu = Cpu::read(stack, &server);

    let begun = Instant::now();
    insert(&mut writer, events, spread.users()).await?;
    let (committed, insert) = (Instant::now(), begun.elapsed());
    for user in &connected {
        let message = Messages {
            first: *user,
            count: 1,
        };
        message
            .insert(&mut writer, |number| number % (USERS + 1))
            .await?;
    }
    let (mut got, mut all) = (Got::default(), Vec::new());
    while let Some(received) = receiving.join_next().await {
        all.push(received??);
    }
    let _ = end.send(true);
    let probed = probing.await??;
    let lost = count(&mut got, &all, events, spread);
    let witness = all.iter().find(|(user, _)| *user == WITNESS);
    let routed = witness.and_then(|(_, got)| got.behind);
    let since = |time: Option<Instant>| {
        time.map_or(Duration::ZERO, |time| {
            time.saturating_duration_since(committed)
        })
    };
    let outcome = Outcome {
        way,
        spread,
        events,
        insert,
        routed: since(routed),
        last: since(got.last),
        behind: since(got.behind),
        peak: peak_memory(server.program.pid())?,
        bound,
        lost,
        again: got.again,
        resets: got.resets,
        reconnects: server.metric("hushnet_listener_reconnects_total").await,
        barrier_age: probed.barrier_age,
        cpu: Cpu::read(stack, &server).since(&cpu).server,
        answers: probed.answers,
    };
    server.program.kill().await;
    writer.close().await?;
    stack.drop_database(&database).await;
    Ok(outcome)
}

/// Adds up what all clients got; says how many events were lost.
fn count(sum: &mut Got, all: &[(usize, Got)], events: usize, spread: Spread) -> u64 {
    let mut lost = 0;
    for (user, got) in all {
        let of_user = (*user..events).step_by(spread.users()).count();
        let expected = if *user < spread.users() { of_user } else { 0 };
        lost += expected.abs_diff(got.in_order) as u64 + u64::from(got.behind.is_none());
        sum.resets += got.resets;
        sum.again += got.again;
        sum.last = sum.last.max(got.last);
        sum.behind = sum.behind.max(got.behind);
    }
    lost
}

/// Inserts messages for the users in turn, in one transaction.
async fn insert(writer: &mut PgConnection, events: usize, users: usize) -> anyhow::Result<()> {
    // Without a chat; the events behind have one.
    let insert = format!(
        "INSERT INTO messages (logical_msg_id, from_user_id, from_device_id, to_user_id, to_device_id, header,
                               ciphertext)
         SELECT 'm', u, u, u, u, '{{}}', 'c' FROM generate_series(0, {events} - 1) AS n,
             LATERAL (SELECT lpad(to_hex(n % {users}), 32, '0')::uuid AS u) AS of"
    );
    sqlx::query(AssertSqlSafe(insert)).execute(writer).await?;
    Ok(())
}

/// Reads up to the event behind the burst.
async fn receive(
    user: usize,
    mut client: Client,
    progress: Arc<AtomicU64>,
) -> anyhow::Result<(usize, Got)> {
    let (mut got, mut last_id) = (Got::default(), i64::MIN);
    loop {
        let before = progress.load(Relaxed);
        let text = match timeout(PATIENCE, client.next_text()).await {
            Ok(text) => text?,
            // Others still get events: this client's may be behind those.
            Err(_) if progress.load(Relaxed) != before => continue,
            Err(_) => return Ok((user, got)),
        };
        progress.fetch_add(1, Relaxed);
        let frame: Frame = serde_json::from_str(text.as_ref())?;
        if frame.kind == "reset" {
            got.resets += 1;
        }
        let Some(id) = frame.id else { continue };
        if frame.number().is_some() {
            got.behind = (id > last_id).then(Instant::now);
            return Ok((user, got));
        }
        if id > last_id {
            got.in_order += 1;
            got.last = Some(Instant::now());
        } else {
            got.again += 1;
        }
        last_id = last_id.max(id);
    }
}

/// What the server said of itself.
#[derive(Default)]
struct Probed {
    barrier_age: f64,
    /// How often `/readyz` gave each answer.
    answers: BTreeMap<String, u64>,
}

/// Asks until it is told to end.
async fn probe(address: SocketAddr, ending: watch::Receiver<bool>) -> anyhow::Result<Probed> {
    let mut probed = Probed::default();
    while !*ending.borrow() {
        let answer = http::get(address, "/readyz").await?;
        let body: Value = serde_json::from_str(&answer.body)?;
        let codes = body["reasons"].as_array().into_iter().flatten();
        let codes: Vec<_> = codes.filter_map(|reason| reason["code"].as_str()).collect();
        let key = format!("{} {}", answer.status, codes.join("+"));
        *probed.answers.entry(key).or_default() += 1;
        let metrics = http::get(address, "/metrics").await?;
        let age = metrics.metric("hushnet_barrier_age_seconds");
        probed.barrier_age = probed.barrier_age.max(age.unwrap_or_default());
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    Ok(probed)
}

impl Outcome {
    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.routed.as_secs_f64().max(f64::EPSILON)
    }

    fn cells(&self) -> Vec<String> {
        let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
        let answers = self.answers.iter();
        let answers: Vec<_> = answers
            .map(|(answer, count)| format!("{count}x {}", answer.trim()))
            .collect();
        vec![
            self.way.as_str().to_owned(),
            self.spread.name().to_owned(),
            self.events.to_string(),
            seconds(self.insert),
            format!("{:.0}", self.events_per_second()),
            seconds(self.last),
            seconds(self.behind),
            (self.peak >> 20).to_string(),
            (self.bound >> 20).to_string(),
            self.lost.to_string(),
            self.again.to_string(),
            self.resets.to_string(),
            self.reconnects.to_string(),
            format!("{:.1}", self.barrier_age),
            seconds(self.cpu),
            answers.join(", "),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "ingest": self.way,
            "connected": self.spread.name(),
            "events": self.events,
            "insert_us": micros(self.insert),
            "routed_us": micros(self.routed),
            "events_per_second": self.events_per_second(),
            "last_us": micros(self.last),
            "behind_us": micros(self.behind),
            "peak_bytes": self.peak,
            "bound_bytes": self.bound,
            "lost": self.lost,
            "again": self.again,
            "resets": self.resets,
            "reconnects": self.reconnects,
            "barrier_age_s": self.barrier_age,
            "server_cpu_us": micros(self.cpu),
            "readyz": self.answers,
        })
    }
}
