//! All clients come back at once.
//!
//! Each client is a user of its own that has got an event and so has a cursor. All connections are
//! dropped together; while nobody is there, each user gets one more event; then all connect together
//! with their cursors, while writers go on with events for some of them. The storm is over when every
//! client has its `hello` and the event that it missed.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hushnet_realtime::config::Ingest;
use hushnet_testkit::wait::until;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::client::{Client, chat_id};
use super::report::{Report, Samples, Table, load_average, micros, millis};
use super::stack::{Cpu, Messages, Stack, populate, resumes, start_server};

const DATABASE: &str = "storm";
/// Connections that are being opened at a time before the storm.
const OPENING_MAX: usize = 128;
/// Rows in one transaction, where many events are written.
const ROWS: usize = 100;
/// Descriptors of the server or of the load process that are no clients.
const DESCRIPTORS_SPARE: u64 = 1_280;
/// Events that writers may commit during a storm.
const LIVE_EVENTS_MAX: usize = 20_000;
/// Without its event after so long, a client has lost it.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Plan {
    pub(crate) ways: Vec<Ingest>,
    pub(crate) clients: usize,
    /// While the clients come back.
    pub(crate) events_per_second: u32,
}

/// Runs a storm for each way of ingest; says how many events were lost.
pub(crate) async fn run(stack: &Stack, report: &mut Report, mut plan: Plan) -> anyhow::Result<u64> {
    let before = load_average();
    let places = usize::try_from(stack.descriptors.saturating_sub(DESCRIPTORS_SPARE))?;
    if plan.clients > places {
        println!(
            "{places} clients instead of {}: no more descriptors",
            plan.clients
        );
        plan.clients = places;
    }
    let mut connection = stack.create(DATABASE).await?;
    let chats = 2 * plan.clients + LIVE_EVENTS_MAX;
    populate(&mut connection, plan.clients, chats).await;
    let mut table = Table::new(&[
        "ingest",
        "clients",
        "all s",
        "hello p50 ms",
        "p99 ms",
        "max ms",
        "missed p50 ms",
        "p99 ms",
        "lost",
        "again",
        "memory",
        "log",
        "queries/client",
        "cpu pg ms",
        "cpu server µs/client",
        "cpu load ms",
        "live",
        "retried",
        "drops",
    ]);
    let (mut rows, mut lost) = (Vec::new(), 0);
    for way in &plan.ways {
        let outcome = measure(stack, &plan, *way)
            .await
            .with_context(|| format!("storm with {}", way.as_str()))?;
        lost += outcome.lost as u64;
        table.row(outcome.cells());
        rows.push(outcome.json());
    }
    report.add("storm", &table, &rows, &before)?;
    println!(
        "  all: until the last client has what it missed; again: events sent a second time, which a \
         client knows by their ids; live: events committed meanwhile; drops: connections that the \
         kernel's queue of the listening socket had no place for at first"
    );
    Ok(lost)
}

struct Outcome {
    way: Ingest,
    clients: usize,
    hello: Samples,
    missed: Samples,
    lost: usize,
    /// Events that came more than once.
    repeated: usize,
    from_memory: f64,
    from_log: f64,
    cpu: Cpu,
    live: usize,
    retried: usize,
    listen_drops: u64,
}

/// What all clients share while they come back.
struct Storm {
    address: SocketAddr,
    begun: Instant,
    /// How often each event came.
    arrivals: Vec<AtomicU32>,
    done: AtomicUsize,
    retried: AtomicUsize,
}

impl Storm {
    /// Waits until these events have arrived. Returns how many are missing when they have had their time.
    async fn wait_for(&self, wanted: Range<usize>) -> usize {
        let missing = || {
            let arrivals = self.arrivals[wanted.clone()].iter();
            arrivals.filter(|count| count.load(Relaxed) == 0).count()
        };
        let since = Instant::now();
        while missing() > 0 && since.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        missing()
    }

    /// Arrivals beyond the first. A replay may begin with the event before the storm, of which each of these
    /// clients has had its own.
    fn repeated(&self, clients: usize) -> usize {
        let more = |count: &AtomicU32| count.load(Relaxed).saturating_sub(1) as usize;
        let before = self.arrivals[..clients].iter();
        self.arrivals.iter().map(more).sum::<usize>()
            + before.filter(|count| count.load(Relaxed) > 0).count()
    }
}

async fn measure(stack: &Stack, plan: &Plan, way: Ingest) -> anyhow::Result<Outcome> {
    let clients = plan.clients;
    let server = start_server(stack, DATABASE, way).await;
    let mut writer = stack.connect(DATABASE).await;
    let cursors = cursors_of_all(server.address(), &mut writer, clients).await?;
    write_for_all(&mut writer, clients, clients).await?;
    until("the server to see them gone", async || {
        server.metric("hushnet_connections_open").await == 0.0
    })
    .await;

    let (memory_before, log_before) = resumes(&server).await;
    let (cpu, drops) = (Cpu::read(stack, &server), listen_drops());
    let events = 2 * clients + LIVE_EVENTS_MAX;
    let storm = Arc::new(Storm {
        address: server.address(),
        begun: Instant::now(),
        arrivals: (0..events).map(|_| AtomicU32::new(0)).collect(),
        done: AtomicUsize::new(0),
        retried: AtomicUsize::new(0),
    });
    let (over, ending) = watch::channel(false);
    let (live_end, live_ending) = watch::channel(false);
    let live = tokio::spawn(write_live(
        writer,
        plan.events_per_second,
        2 * clients,
        clients,
        live_ending,
    ));
    let mut returning = JoinSet::new();
    for (number, cursor) in cursors.into_iter().enumerate() {
        let client = come_back(Arc::clone(&storm), number, clients, cursor, ending.clone());
        returning.spawn(client);
    }
    while storm.done.load(Relaxed) < clients && storm.begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let cpu = Cpu::read(stack, &server).since(&cpu);
    let listen_drops = listen_drops() - drops;
    let _ = live_end.send(true);
    let live = live.await??;

    let lost = storm.wait_for(clients..2 * clients + live).await;
    let _ = over.send(true);
    let (mut hello, mut missed) = (Vec::new(), Vec::new());
    while let Some(returned) = returning.join_next().await {
        let returned = returned?.context("in the storm")?;
        hello.push(returned.hello);
        missed.extend(returned.missed);
    }
    let (memory, log) = resumes(&server).await;
    server.program.kill().await;
    Ok(Outcome {
        way,
        clients,
        hello: Samples::new(hello),
        missed: Samples::new(missed),
        lost,
        repeated: storm.repeated(clients),
        from_memory: memory - memory_before,
        from_log: log - log_before,
        cpu,
        live,
        retried: storm.retried.load(Relaxed),
        listen_drops,
    })
}

/// Connects a client for each user, lets each get an event and drops all of them; returns the cursors
/// that they are left with.
async fn cursors_of_all(
    address: SocketAddr,
    writer: &mut sqlx::PgConnection,
    clients: usize,
) -> anyhow::Result<Vec<String>> {
    let mut all = connect_all(address, clients).await?;

    write_for_all(writer, 0, clients).await?;
    let mut receiving = JoinSet::new();
    for (number, mut client) in all.drain(..) {
        receiving.spawn(async move {
            let got = async {
                while client.next().await?.number() != Some(number) {}
                anyhow::Ok(())
            };
            timeout(PATIENCE, got).await??;
            anyhow::Ok((number, client))
        });
    }
    while let Some(received) = receiving.join_next().await {
        all.push(received?.context("before the storm")?);
    }

    let mut cursors = vec![String::new(); clients];
    for (number, client) in all {
        // Its connection is dropped with it.
        cursors[number] = client.cursor;
    }
    Ok(cursors)
}

/// A client for each of the users `0..clients`, with its number.
async fn connect_all(address: SocketAddr, clients: usize) -> anyhow::Result<Vec<(usize, Client)>> {
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let mut connecting = JoinSet::new();
    for number in 0..clients {
        let opening = Arc::clone(&opening);
        connecting.spawn(async move {
            let _place = opening.acquire_owned().await?;
            let (client, _) = Client::connect(address, chat_id(number), None).await?;
            anyhow::Ok((number, client))
        });
    }
    let mut all = Vec::with_capacity(clients);
    while let Some(connected) = connecting.join_next().await {
        all.push(connected??);
    }
    Ok(all)
}

/// One event for each user, numbered from `first` on.
async fn write_for_all(
    writer: &mut sqlx::PgConnection,
    first: usize,
    clients: usize,
) -> anyhow::Result<()> {
    for user in (0..clients).step_by(ROWS) {
        let messages = Messages {
            first: first + user,
            count: ROWS.min(clients - user),
        };
        messages
            .insert(writer, |number| (number - first) % clients)
            .await?;
    }
    Ok(())
}

/// Events for users in turn, one in a transaction, until it is stopped. Returns how many.
async fn write_live(
    mut writer: sqlx::PgConnection,
    events_per_second: u32,
    first: usize,
    clients: usize,
    end: watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    let mut tick = interval(Duration::from_secs(1) / events_per_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = 0;
    while !*end.borrow() && written < LIVE_EVENTS_MAX {
        tick.tick().await;
        let message = Messages {
            first: first + written,
            count: 1,
        };
        message
            .insert(&mut writer, |number| number * 7 % clients)
            .await?;
        written += 1;
    }
    Ok(written)
}

struct Returned {
    /// From the beginning of the storm.
    hello: Duration,
    /// `None` when it never came.
    missed: Option<Duration>,
}

/// Connects with the cursor, again and again if need be, and reads until the storm is over.
async fn come_back(
    storm: Arc<Storm>,
    number: usize,
    clients: usize,
    cursor: String,
    mut ending: watch::Receiver<bool>,
) -> anyhow::Result<Returned> {
    let (mut client, greeting) = loop {
        match Client::connect(storm.address, chat_id(number), Some(&cursor)).await {
            Ok(connected) => break connected,
            Err(error) if storm.begun.elapsed() > PATIENCE => return Err(error),
            Err(_) => {
                storm.retried.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let hello = storm.begun.elapsed();
    ensure!(greeting.resumed, "a cursor of a moment ago was not resumed");
    let mut missed = None;
    loop {
        let frame = tokio::select! {
            frame = client.next() => frame?,
            _ = ending.wait_for(|over| *over) => return Ok(Returned { hello, missed }),
        };
        let Some(event) = frame.number() else {
            continue;
        };
        storm.arrivals[event].fetch_add(1, Relaxed);
        if event == clients + number && missed.is_none() {
            missed = Some(storm.begun.elapsed());
            storm.done.fetch_add(1, Relaxed);
        }
    }
}

/// Connections that found the queue of a listening socket full, on this machine since it started.
fn listen_drops() -> u64 {
    let text = std::fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs
        .find(|(name, _)| *name == "ListenOverflows")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

impl Outcome {
    fn server_us_per_client(&self) -> u64 {
        micros(self.cpu.server) / self.clients.max(1) as u64
    }

    fn cells(&self) -> Vec<String> {
        let (hello, missed) = (&self.hello, &self.missed);
        vec![
            self.way.as_str().to_owned(),
            self.clients.to_string(),
            format!("{:.2}", missed.max().as_secs_f64()),
            millis(hello.median()),
            millis(hello.per_mille(990)),
            millis(hello.max()),
            millis(missed.median()),
            millis(missed.per_mille(990)),
            self.lost.to_string(),
            self.repeated.to_string(),
            self.from_memory.to_string(),
            self.from_log.to_string(),
            format!("{:.4}", self.from_log / self.clients as f64),
            self.cpu.database.as_millis().to_string(),
            self.server_us_per_client().to_string(),
            self.cpu.load.as_millis().to_string(),
            self.live.to_string(),
            self.retried.to_string(),
            self.listen_drops.to_string(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "ingest": self.way,
            "clients": self.clients,
            "all_resumed_us": micros(self.missed.max()),
            "hello": self.hello.json(),
            "missed": self.missed.json(),
            "lost": self.lost,
            "repeated": self.repeated,
            "replays_from_memory": self.from_memory,
            "replays_from_log": self.from_log,
            "queries_per_client": self.from_log / self.clients as f64,
            "postgresql_cpu_us": micros(self.cpu.database),
            "server_cpu_us_per_client": self.server_us_per_client(),
            "load_cpu_us": micros(self.cpu.load),
            "live_events": self.live,
            "retried": self.retried,
            "listen_overflows": self.listen_drops,
        })
    }
}
