//! From commit to client, at a fixed rate.
//!
//! An open loop: when a transaction is to be sent is fixed beforehand, whether or not those before it
//! have ended. Each inserts rows into `messages`, whose chats tell the events apart when they arrive.
//! One process writes and receives, so there is one clock. Two times are taken for each event, both
//! to the moment when its client has the frame: from the moment when the writer learns that the
//! commit is done, which is the server's doing, and from the moment when the transaction was to be
//! sent, which is what a user waits. An event may arrive before its writer learns of the commit; that
//! counts as 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hushnet_realtime::config::Ingest;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Client, Frame, chat_id};
use super::report::{Report, Samples, Table, load_average, millis, percent};
use super::stack::{Cpu, Messages, Stack, populate, start_server};

const DATABASE: &str = "latency";
const WRITERS: usize = 16;
/// Sent before the measurement so that all connections are warm, and too slowly to wake `adaptive`.
const WARM_UP: Load = Load {
    events_per_second: 64,
    rows: 1,
};
const WARM_UP_EVENTS: usize = 64;
/// An event that has not come so long after the last one that came is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// After everything has come, for duplicates to come too.
const AFTERMATH: Duration = Duration::from_millis(200);
/// Of the rate that was asked for, in percent: with less the writers have not kept it.
const KEPT: f64 = 99.0;

pub(crate) struct Plan {
    pub(crate) ways: Vec<Ingest>,
    pub(crate) loads: Vec<Load>,
    pub(crate) users: usize,
    pub(crate) duration: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) events_per_second: u32,
    /// Rows in one transaction, which is one statement.
    pub(crate) rows: usize,
}

impl Load {
    fn events(self, duration: Duration) -> usize {
        // As many as fit into memory.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let events = (f64::from(self.events_per_second) * duration.as_secs_f64()) as usize;
        events / self.rows * self.rows
    }

    /// When this transaction is to be sent, from the beginning.
    fn due(self, transaction: usize) -> Duration {
        Duration::from_secs_f64(
            (transaction * self.rows) as f64 / f64::from(self.events_per_second),
        )
    }
}

/// What is known of each event, by its number; times in nanoseconds since `zero`, 0 for never.
struct Flights {
    zero: Instant,
    committed: Vec<AtomicU64>,
    received: Vec<AtomicU64>,
    arrivals: AtomicUsize,
    duplicates: AtomicUsize,
}

impl Flights {
    fn new(events: usize) -> Self {
        let never = || (0..events).map(|_| AtomicU64::new(0)).collect();
        Self {
            zero: Instant::now(),
            committed: never(),
            received: never(),
            arrivals: AtomicUsize::new(0),
            duplicates: AtomicUsize::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn arrived(&self, number: usize, at: u64) {
        let Some(received) = self.received.get(number) else {
            return;
        };
        if received.compare_exchange(0, at, Relaxed, Relaxed).is_ok() {
            self.arrivals.fetch_add(1, Relaxed);
        } else {
            self.duplicates.fetch_add(1, Relaxed);
        }
    }

    /// Waits until so many have arrived, or until nothing more arrives.
    async fn settle(&self, wanted: usize) {
        let (mut arrivals, mut since) = (0, Instant::now());
        while arrivals < wanted && since.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.arrivals.load(Relaxed);
            if now > arrivals {
                (arrivals, since) = (now, Instant::now());
            }
        }
        tokio::time::sleep(AFTERMATH).await;
    }
}

/// Runs each way of ingest at each rate, on a server of its own; says how many events were lost.
pub(crate) async fn run(stack: &Stack, report: &mut Report, plan: &Plan) -> anyhow::Result<u64> {
    let before = load_average();
    let events_max = plan
        .loads
        .iter()
        .map(|load| load.events(plan.duration))
        .max();
    let mut connection = stack.create(DATABASE).await?;
    populate(
        &mut connection,
        plan.users,
        WARM_UP_EVENTS + events_max.unwrap_or(0),
    )
    .await;
    let mut table = Table::new(&[
        "ingest",
        "events/s",
        "rows/tx",
        "reached",
        "events",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "lost",
        "dup",
        "sched p50",
        "sched p99",
        "cpu server",
        "cpu pg",
        "cpu load",
    ]);
    let (mut rows, mut lost) = (Vec::new(), 0);
    for way in &plan.ways {
        for load in &plan.loads {
            let outcome = measure(stack, plan, *way, *load)
                .await
                .with_context(|| format!("{} at {}", way.as_str(), load.events_per_second))?;
            lost += outcome.lost as u64;
            table.row(outcome.cells());
            rows.push(outcome.json());
        }
    }
    report.add("latency", &table, &rows, &before)?;
    println!(
        "  p50 to max: commit to client; sched: from when the transaction was to be sent. {} users, \
         {WRITERS} writers; cpu in % of one core; ! the writers did not keep the rate",
        plan.users
    );
    Ok(lost)
}

struct Outcome {
    way: Ingest,
    load: Load,
    events: usize,
    reached: f64,
    from_commit: Samples,
    from_schedule: Samples,
    /// Events that arrived before their writer learnt of the commit.
    early: usize,
    lost: usize,
    duplicates: usize,
    cpu: Cpu,
    over: Duration,
}

async fn measure(stack: &Stack, plan: &Plan, way: Ingest, load: Load) -> anyhow::Result<Outcome> {
    let server = start_server(stack, DATABASE, way).await;
    let events = load.events(plan.duration);
    let flights = Arc::new(Flights::new(WARM_UP_EVENTS + events));
    let mut clients = JoinSet::new();
    for user in 0..plan.users {
        let (client, _) = Client::connect(server.address(), chat_id(user), None).await?;
        clients.spawn(receive(client, Arc::clone(&flights)));
    }
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(stack.connect(DATABASE).await);
    }
    write(
        &mut writers,
        &flights,
        plan.users,
        WARM_UP,
        0,
        WARM_UP_EVENTS,
    )
    .await?;
    flights.settle(WARM_UP_EVENTS).await;

    let cpu = Cpu::read(stack, &server);
    let begun = flights.now();
    write(
        &mut writers,
        &flights,
        plan.users,
        load,
        WARM_UP_EVENTS,
        events,
    )
    .await?;
    let over = Duration::from_nanos(flights.now() - begun);
    let cpu = Cpu::read(stack, &server).since(&cpu);
    flights.settle(WARM_UP_EVENTS + events).await;
    if let Some(ended) = clients.try_join_next() {
        ended?.context("a client was lost")?;
    }
    server.program.kill().await;

    let (mut from_commit, mut from_schedule, mut early) = (Vec::new(), Vec::new(), 0);
    for (event, number) in (WARM_UP_EVENTS..WARM_UP_EVENTS + events).enumerate() {
        let received = flights.received[number].load(Relaxed);
        if received == 0 {
            continue;
        }
        let committed = flights.committed[number].load(Relaxed);
        early += usize::from(received < committed);
        from_commit.push(Duration::from_nanos(received.saturating_sub(committed)));
        let due = Duration::from_nanos(begun) + load.due(event / load.rows);
        from_schedule.push(Duration::from_nanos(received).saturating_sub(due));
    }
    Ok(Outcome {
        way,
        load,
        events,
        reached: events as f64 / over.as_secs_f64(),
        from_commit: Samples::new(from_commit),
        from_schedule: Samples::new(from_schedule),
        early,
        lost: WARM_UP_EVENTS + events - flights.arrivals.load(Relaxed),
        duplicates: flights.duplicates.load(Relaxed),
        cpu,
        over,
    })
}

/// Notes what comes, until the connection ends.
async fn receive(mut client: Client, flights: Arc<Flights>) -> anyhow::Result<()> {
    loop {
        let text = client.next_text().await?;
        let now = flights.now();
        let frame: Frame = serde_json::from_str(text.as_ref())?;
        if let Some(number) = frame.number() {
            flights.arrived(number, now);
        }
    }
}

/// Sends `events` events from number `first` on, when they are due; returns when all have committed.
async fn write(
    writers: &mut Vec<PgConnection>,
    flights: &Arc<Flights>,
    users: usize,
    load: Load,
    first: usize,
    events: usize,
) -> anyhow::Result<()> {
    let transactions = events / load.rows;
    let (due, next) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    // A thread sleeps as exactly as the kernel can; tokio's timers count milliseconds.
    let pacer = std::thread::spawn({
        let due = Arc::clone(&due);
        move || {
            for transaction in 0..transactions {
                let wait = load.due(transaction).saturating_sub(begun.elapsed());
                if !wait.is_zero() {
                    std::thread::sleep(wait);
                }
                due.add_permits(1);
            }
            // For the writers to see that there is no more.
            due.add_permits(WRITERS);
        }
    });
    let mut writing = JoinSet::new();
    for mut connection in writers.drain(..) {
        let (due, next) = (Arc::clone(&due), Arc::clone(&next));
        let flights = Arc::clone(flights);
        writing.spawn(async move {
            loop {
                due.acquire().await?.forget();
                let transaction = next.fetch_add(1, Relaxed);
                if transaction >= transactions {
                    return anyhow::Ok(connection);
                }
                let messages = Messages {
                    first: first + transaction * load.rows,
                    count: load.rows,
                };
                // Neighbours in time are not neighbours in number.
                let to = |number| number * 7 % users;
                messages.insert(&mut connection, to).await?;
                let now = flights.now();
                for number in messages.first..messages.first + messages.count {
                    flights.committed[number].store(now, Relaxed);
                }
            }
        });
    }
    while let Some(connection) = writing.join_next().await {
        writers.push(connection??);
    }
    ensure!(pacer.join().is_ok(), "the pacer panicked");
    Ok(())
}

impl Outcome {
    fn kept(&self) -> bool {
        self.reached * 100.0 >= KEPT * f64::from(self.load.events_per_second)
    }

    fn cells(&self) -> Vec<String> {
        let (commit, schedule) = (&self.from_commit, &self.from_schedule);
        let cpu = |time| percent(time, self.over).to_string();
        vec![
            self.way.as_str().to_owned(),
            self.load.events_per_second.to_string(),
            self.load.rows.to_string(),
            format!("{:.0}{}", self.reached, if self.kept() { "" } else { "!" }),
            self.events.to_string(),
            millis(commit.median()),
            millis(commit.per_mille(990)),
            millis(commit.per_mille(999)),
            millis(commit.max()),
            self.lost.to_string(),
            self.duplicates.to_string(),
            millis(schedule.median()),
            millis(schedule.per_mille(990)),
            cpu(self.cpu.server),
            cpu(self.cpu.database),
            cpu(self.cpu.load),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "ingest": self.way,
            "events_per_second": self.load.events_per_second,
            "rows_per_transaction": self.load.rows,
            "reached_events_per_second": self.reached,
            "kept": self.kept(),
            "events": self.events,
            "commit_to_client": self.from_commit.json(),
            "schedule_to_client": self.from_schedule.json(),
            "early": self.early,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "cpu_percent": {
                "server": percent(self.cpu.server, self.over),
                "postgresql": percent(self.cpu.database, self.over),
                "load": percent(self.cpu.load, self.over),
            },
        })
    }
}
