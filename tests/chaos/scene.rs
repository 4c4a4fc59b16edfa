//! A scenario: a database, a service, writers and clients, a fault, and the judgement.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hushnet_devdb::Cluster;
use hushnet_realtime::config::Config;
use hushnet_testkit::wait::{deadline, until};
use sqlx::Connection;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clients::{Client, Finished, Habit, Phase};
use crate::lab::Lab;
use crate::ledger::{Ledger, Outcome, Record};
use crate::library::Library;
use crate::service::Service;
use crate::settings;
use crate::verdict::Verdict;
use crate::writers::{Application, Writer, insert_long, insert_messages};

/// The service's counters that are shown beside the verdict.
const COUNTERS: [&str; 8] = [
    "hushnet_listener_reconnects_total",
    "hushnet_events_caught_up_total",
    "hushnet_events_streamed_total",
    "hushnet_wal_stream_failures_total",
    "hushnet_replays_total",
    "hushnet_lagged",
    "hushnet_closes_total",
    "hushnet_connections_closed_total",
];

/// The parts of a scenario.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: &'static str,
    pub users: usize,
    /// The devices of each user.
    pub habits: Vec<Habit>,
    pub writers: usize,
    pub pace: Duration,
    /// How long some transactions stay open, in milliseconds.
    pub long_ms: Range<u64>,
    /// Messages of one statement, at most.
    pub rows_max: usize,
    /// Transactions in a hundred whose event is too long to be notified.
    pub by_reference: i32,
    /// Whether writers commit without waiting for the disk.
    pub asynchronous: bool,
}

impl Plan {
    /// Some users with one faithful device, one restless one and one of the specification each.
    pub fn named(name: &'static str) -> Self {
        Self {
            name,
            users: 6,
            habits: vec![
                Habit::Faithful,
                Habit::Plain,
                Habit::Restless {
                    away_max: Duration::from_millis(1_500),
                    stall_max: Duration::from_secs(1),
                    read_pause: Duration::ZERO,
                },
            ],
            writers: settings::writers(),
            pace: settings::pace(),
            long_ms: 200..2_000,
            rows_max: 6,
            by_reference: 3,
            asynchronous: false,
        }
    }
}

/// A running scenario.
#[derive(Debug)]
pub struct Scene {
    pub lab: Lab,
    /// Without those that are killed. Clients of the specification connect to the last one.
    pub services: Vec<Service>,
    plan: Plan,
    application: Arc<Application>,
    phase: watch::Sender<Phase>,
    clients: JoinSet<Finished>,
    writers: JoinSet<()>,
    stop_writing: CancellationToken,
    /// Messages with lower numbers may have been committed by a primary that a standby has taken the place of.
    left_behind: usize,
}

/// A scenario that is over.
#[derive(Debug)]
pub struct Outcomes {
    pub verdict: Verdict,
    pub records: Vec<Record>,
    pub clients: Vec<Finished>,
}

impl Scene {
    /// With the service in this process.
    pub async fn set(plan: Plan, change: impl FnOnce(&mut Config)) -> Self {
        let lab = Lab::open().await;
        let service = Service::start(&lab.url(), change).await;
        Self::set_with(plan, lab, vec![service]).await
    }

    /// All clients are connected and the writers write when this returns.
    pub async fn set_with(plan: Plan, lab: Lab, services: Vec<Service>) -> Self {
        let seed = settings::seed() ^ hash(plan.name);
        let mut database = lab.database().await;
        let users: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO users (username) SELECT n FROM generate_series(1, $1) AS n RETURNING id",
        )
        .bind(i32::try_from(plan.users).unwrap())
        .fetch_all(&mut database)
        .await
        .unwrap();
        let commit = if plan.asynchronous { "off" } else { "on" };
        let application = Arc::new(Application {
            ledger: Arc::new(Ledger::new(rand::random())),
            users,
            database: lab
                .options()
                .application_name("writer")
                .options([("synchronous_commit", commit)]),
            pace: plan.pace,
            writers: plan.writers,
            quiet: AtomicBool::new(false),
            long_ms: plan.long_ms.clone(),
            rows_max: plan.rows_max,
            by_reference: plan.by_reference,
        });
        let (phase, clients) = (watch::Sender::new(Phase::Storm), JoinSet::new());
        let mut scene = Self {
            lab,
            services,
            application,
            phase,
            clients,
            writers: JoinSet::new(),
            stop_writing: CancellationToken::new(),
            left_behind: 0,
            plan,
        };
        scene.connect_clients(seed).await;
        for number in 0..scene.plan.writers {
            let writer = Writer::new(Arc::clone(&scene.application), seed + number as u64);
            scene.writers.spawn(writer.run(scene.stop_writing.clone()));
        }
        scene
    }

    async fn connect_clients(&mut self, seed: u64) {
        let mut connected = JoinSet::new();
        let addresses: Arc<[SocketAddr]> = self.services.iter().map(|s| s.address).collect();
        for (user, user_id) in self.application.users.iter().enumerate() {
            for (device, habit) in self.plan.habits.iter().enumerate() {
                let client = Client::new(
                    *habit,
                    Arc::clone(&addresses),
                    self.lab.options(),
                    Arc::clone(&self.application.ledger),
                    self.phase.subscribe(),
                    Library::new(user, *user_id),
                    seed ^ hash(&(user, device)),
                );
                connected.spawn(client.begin());
            }
        }
        while let Some(client) = connected.join_next().await {
            let (client, socket) = client.unwrap();
            self.clients.spawn(client.live(socket));
        }
    }

    /// The application writes so many messages of this length to each user, which the bus has to keep for a node that does
    /// not read.
    pub async fn write_long(&self, count: usize, bytes: i32) {
        let ledger = &self.application.ledger;
        let users: Vec<usize> = (0..self.application.users.len()).collect();
        let users = users.repeat(count);
        let recipients: Vec<Uuid> = users.iter().map(|u| self.application.users[*u]).collect();
        let messages = ledger.begin(&users);
        let names: Vec<Uuid> = messages.iter().map(|m| ledger.name(*m)).collect();
        let mut database = self.lab.database().await;
        let written = insert_long(&mut database, &names, &recipients, bytes).await;
        let outcome = if written.is_ok() {
            Outcome::Committed
        } else {
            Outcome::Unknown
        };
        ledger.end(&messages, outcome);
    }

    /// The primary crashes under load, and the standby is promoted with what it has.
    pub async fn crash_over_to(&mut self, standby: Cluster) {
        self.lab.crash_over_to(standby).await;
        self.left_behind = self.written();
    }

    /// Events written so far.
    pub fn written(&self) -> usize {
        self.application.ledger.len()
    }

    /// Lets the load run for this time.
    pub async fn load(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut(&Self) -> bool) {
        until(what, async || condition(self).await).await;
    }

    /// A counter of the service.
    pub async fn counter(&self, name: &str) -> f64 {
        self.services[0].counter(name).await
    }

    /// Whether the service is ready.
    pub async fn is_ready(&self) -> bool {
        self.services[0].is_ready().await
    }

    /// The application writes as much as it does, or little.
    pub fn set_quiet(&self, quiet: bool) {
        self.application.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Waits until this many more events are committed; `false` if it takes longer than `within`.
    pub async fn progress(&self, count: usize, within: Duration) -> bool {
        let committed = || {
            let records = self.application.ledger.records();
            records
                .iter()
                .filter(|r| r.outcome == Outcome::Committed)
                .count()
        };
        let (wanted, deadline) = (committed() + count, Instant::now() + within);
        while committed() < wanted {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Stops the writers, and waits until none of their transactions is open in the database.
    pub async fn silence(&mut self) {
        self.stop_writing.cancel();
        while self.writers.join_next().await.is_some() {}
        let mut database = self.lab.database().await;
        loop {
            let open: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer'",
            )
            .fetch_one(&mut database)
            .await
            .unwrap();
            if open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ledger = &self.application.ledger;
        ledger.leave_behind(&mut database, self.left_behind).await;
        ledger.resolve(&mut database, self.plan.asynchronous).await;
        database.close().await.unwrap();
    }

    /// Sends each user a last message, waits for it at every client, ends everything and compares.
    pub async fn judge(mut self) -> Outcomes {
        self.silence().await;
        let ledger = &self.application.ledger;
        let users: Vec<usize> = (0..self.application.users.len()).collect();
        let last_messages = ledger.begin(&users);
        let names: Vec<Uuid> = last_messages.iter().map(|m| ledger.name(*m)).collect();
        let mut database = self.lab.database().await;
        insert_messages(&mut database, &names, &self.application.users)
            .await
            .unwrap();
        database.close().await.unwrap();
        ledger.end(&last_messages, Outcome::Committed);
        self.phase.send_replace(Phase::Calm {
            last_messages: Arc::new(last_messages),
            // After a long load there is a long log to read, in pages of which each sorts the rest.
            give_up_at: tokio::time::Instant::now() + deadline().max(2 * settings::load_time()),
        });
        let mut clients = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            clients.push(client.unwrap());
        }
        let mut counters = Vec::new();
        for service in self.services {
            counters.push(service.counters(&COUNTERS).await);
            service.stop().await;
        }
        self.lab.close().await;
        let records = self.application.ledger.records();
        let verdict = Verdict::new(&records, &clients);
        eprintln!(
            "{} [{}, seed {}]: {verdict}\n  the service: {}",
            self.plan.name,
            settings::ingest(),
            settings::seed(),
            counters.join("\n  and: ")
        );
        Outcomes {
            verdict,
            records,
            clients,
        }
    }
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
