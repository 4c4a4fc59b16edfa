//! Tables of one's own, attached from the command line: whatever is done to them and to the service, each client's copy of
//! its rows becomes what the table has.
//!
//! A client begins with its rows and a cursor of one snapshot. An event that does not fit what it has (an `insert` of a
//! row that it has, an `update` or a `delete` of one that it has not) is an event that was lost, invented or out of order;
//! or a reset follows it, since a table was emptied or an event could not be made.

mod copy;
mod schemas;
mod writers;

use std::process::Stdio;
use std::time::Duration;

use hushnet_testkit::database::connect;
use hushnet_testkit::program::command;
use hushnet_testkit::roles::SERVICE;
use hushnet_testkit::wait::until;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sqlx::AssertSqlSafe;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::copy::{Copy, Phase};
use self::schemas::{NUMBERS, PARTITIONED, Schema, TEAMS};
use crate::lab::{Lab, Shutdown, execute};
use crate::service::Service;
use crate::settings;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_customers_whose_ids_are_numbers() {
    survive(&NUMBERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_teams_whose_members_are_named_by_a_query() {
    survive(&TEAMS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_in_partitions() {
    survive(&PARTITIONED).await;
}

async fn survive(schema: &'static Schema) {
    let lab = Lab::bare().await;
    let mut owner = connect(&lab.owner_url()).await;
    execute(&mut owner, schema.tables).await;
    attach(&lab, schema).await;
    let url = lab.url_as(SERVICE);
    let service = Service::start_binary(&url, "127.0.0.1:0".parse().unwrap()).await;

    let quiet = CancellationToken::new();
    let mut writing = JoinSet::new();
    for number in 0..settings::writers().min(WRITERS_MAX) {
        writing.spawn(writers::write(
            schema,
            lab.options(),
            settings::seed() ^ number as u64,
            quiet.clone(),
        ));
    }
    let (mut copies, phase) = (JoinSet::new(), watch::Sender::new(Phase::Exact));
    for number in 0..2 * schema.users.len() {
        let (address, database) = (service.address, lab.options());
        let copy = Copy::new(schema, number, address, database, phase.subscribe());
        copies.spawn(copy.keep());
    }
    let mut shop = Shop {
        schema,
        lab,
        service: Some(service),
        url,
    };
    let mut faults = FAULTS.to_vec();
    faults.shuffle(&mut StdRng::seed_from_u64(settings::seed()));
    let pause = settings::load_time() / u32::try_from(FAULTS.len() + GAPS.len()).unwrap();
    for fault in &faults {
        tokio::time::sleep(pause).await;
        shop.suffer(*fault, pause).await;
    }
    tokio::time::sleep(pause).await;
    phase.send_replace(Phase::WithGaps);
    for fault in GAPS {
        shop.suffer(fault, pause).await;
        tokio::time::sleep(pause).await;
    }

    quiet.cancel();
    let transactions: usize = writing.join_all().await.into_iter().sum();
    phase.send_replace(Phase::Calm);
    let mut events = 0;
    while let Some(copied) = copies.join_next().await {
        events += copied.unwrap();
    }
    eprintln!(
        "{}: {transactions} transactions, {events} events, 0 that did not fit; {faults:?}, seed {}",
        schema.table,
        settings::seed()
    );
    assert!(transactions > 20 && events > 20);
    shop.close().await;
}

/// What is done while the writers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ListenerEnded,
    LinkCut,
    ServiceKilled,
    Crash,
    IngestChanged,
    TableEmptied,
    EventsFail,
}

/// These make no difference to the events.
const FAULTS: [Fault; 5] = [
    Fault::ListenerEnded,
    Fault::LinkCut,
    Fault::ServiceKilled,
    Fault::Crash,
    Fault::IngestChanged,
];
/// A cursor of 256 bytes names so many transactions that write at once. With more it is of before the state.
const WRITERS_MAX: usize = 20;
/// The code of `deadlock_detected`.
const DEADLOCK: &str = "40P01";
/// For these the clients are reset.
const GAPS: [Fault; 2] = [Fault::TableEmptied, Fault::EventsFail];

/// What a fault is done to.
struct Shop {
    schema: &'static Schema,
    lab: Lab,
    service: Option<Service>,
    /// The service's database.
    url: String,
}

impl Shop {
    async fn suffer(&mut self, fault: Fault, pause: Duration) {
        match fault {
            Fault::ListenerEnded => {
                self.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE 'LISTEN%'",
                )
                .await;
            }
            Fault::LinkCut => {
                self.lab.proxy.cut();
                tokio::time::sleep(pause).await;
                self.lab.proxy.mend();
            }
            Fault::ServiceKilled => {
                let service = self.service.take().unwrap();
                let address = service.address;
                service.kill().await;
                tokio::time::sleep(pause).await;
                self.service = Some(Service::start_binary(&self.url, address).await);
            }
            Fault::Crash => {
                self.lab.stop(Shutdown::Immediate).await;
                self.lab.start().await;
            }
            Fault::IngestChanged => {
                for way in ["tail", "adaptive", "notify", &settings::ingest()] {
                    let change = format!("SELECT realtime.set_ingest('{way}')");
                    self.run(&change).await;
                    tokio::time::sleep(pause / 4).await;
                }
            }
            Fault::TableEmptied => self.run(&format!("TRUNCATE {}", self.schema.table)).await,
            Fault::EventsFail => {
                let (breaks, mends) = self.schema.breaks;
                if breaks.is_empty() {
                    return;
                }
                self.run(breaks).await;
                let failed = "SELECT EXISTS (SELECT FROM realtime.log WHERE kind = 'event_failed')";
                let mut database = self.lab.database().await;
                until("a writer has met it", async || {
                    let failed: bool = sqlx::query_scalar(failed)
                        .fetch_one(&mut database)
                        .await
                        .unwrap();
                    failed
                })
                .await;
                self.run(mends).await;
            }
        }
    }

    /// What waits for many locks (TRUNCATE of a partitioned table) may meet a writer in a deadlock, and is then run again.
    async fn run(&self, statements: &str) {
        let mut database = self.lab.database().await;
        loop {
            let run = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut database);
            match run.await {
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(DEADLOCK) => {}
                done => {
                    done.unwrap();
                    return;
                }
            }
        }
    }

    async fn close(self) {
        self.service.unwrap().stop().await;
        self.lab.close().await;
    }
}

/// As an operator does, who is the owner of the tables and of the log.
async fn attach(lab: &Lab, schema: &Schema) {
    let mut command = command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    command.args(["attach", schema.table]).args(schema.attach);
    command
        .args(["--database-url", &lab.owner_url()])
        .stdout(Stdio::null());
    assert!(command.status().await.unwrap().success());
}
