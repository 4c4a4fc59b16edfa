//! Which positions are retained: each that has seen everything that was dropped, whatever still runs.

use std::collections::BTreeSet;

use hushnet_realtime::protocol::Snapshot;
use hushnet_realtime::store::Log;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::{ALONE, age, count, drop_expired, log_of, missed, names, present};
use crate::support::{Database, add_user, execute, insert_message};

#[tokio::test]
async fn an_old_prepared_transaction_makes_no_position_too_old() {
    let _alone = ALONE.lock().await;
    let database = Database::with_prepared_transactions().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let before_all = present(&log).await;
    execute(
        &mut connection,
        "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'",
    )
    .await;
    insert_message(&db, None, &alice, &bob).await;
    let away = present(&log).await;
    age(&mut connection).await;
    drop_expired(&log).await;
    insert_message(&db, None, &alice, &bob).await;
    // It runs in both, and no event of it has been dropped.
    assert_eq!(missed(&log, &bob, &away.snapshot).await, Some(1));
    let now = present(&log).await;
    assert_eq!(missed(&log, &bob, &now.snapshot).await, Some(0));
    assert_eq!(missed(&log, &bob, &before_all.snapshot).await, None);

    execute(&mut connection, "COMMIT PREPARED 'forgotten'").await;
    assert_eq!(missed(&log, &bob, &away.snapshot).await, Some(1));
    // The next drop cannot tell any more whether it wrote something that is gone.
    age(&mut connection).await;
    drop_expired(&log).await;
    assert_eq!(missed(&log, &bob, &away.snapshot).await, None);
    assert_eq!(missed(&log, &bob, &now.snapshot).await, None);
    let now = present(&log).await;
    assert_eq!(missed(&log, &bob, &now.snapshot).await, Some(0));
}

#[tokio::test]
async fn a_transaction_that_has_ended_since_is_not_taken_for_one_that_runs() {
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let mut writer = db.begin().await.unwrap();
    insert_message(&mut *writer, None, &alice, &bob).await;
    insert_message(&db, None, &alice, &bob).await;
    let during = present(&log).await;
    writer.commit().await.unwrap();
    assert_eq!(missed(&log, &bob, &during.snapshot).await, Some(1));
    age(&mut connection).await;
    drop_expired(&log).await;
    assert_eq!(missed(&log, &bob, &during.snapshot).await, None);
}

#[tokio::test]
async fn a_hundred_transactions_in_flight_change_nothing() {
    let _alone = ALONE.lock().await;
    let database = Database::with_prepared_transactions().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    let begin = async || {
        let mut transaction = database.connect().await;
        execute(&mut transaction, "BEGIN; SELECT pg_current_xact_id();").await;
        transaction
    };
    let mut in_flight = Vec::new();
    // So many old ones that a client's cursor, which is cut at the eleventh, names them all.
    for _ in 0..9 {
        in_flight.push(begin().await);
    }
    insert_message(&db, None, &alice, &bob).await;
    for _ in 0..91 {
        in_flight.push(begin().await);
    }
    let away = present(&log).await;
    age(&mut connection).await;
    drop_expired(&log).await;
    let now = present(&log).await;
    for position in [&away, &now] {
        assert_eq!(missed(&log, &bob, &position.snapshot).await, Some(0));
    }
    for mut transaction in in_flight {
        insert_message(&mut transaction, None, &alice, &bob).await;
        execute(&mut transaction, "COMMIT").await;
    }
    for position in [&away, &now] {
        assert_eq!(missed(&log, &bob, &position.snapshot).await, Some(100));
    }
}

/// The reads go on while the partition is emptied, with statements whose plans are cached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_has_all_events_or_knows_that_some_are_gone() {
    const EVENTS: usize = 20;
    let database = Database::migrated().await;
    let db = database.pool().await;
    let mut connection = database.connect().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let log = log_of(&database);
    for _ in 0..20 {
        let since = present(&log).await.snapshot;
        for _ in 0..EVENTS {
            insert_message(&db, None, &alice, &bob).await;
        }
        age(&mut connection).await;
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (log, since) = (log.clone(), since.clone());
                tokio::spawn(async move {
                    while let Some(found) = missed(&log, &bob, &since).await {
                        assert_eq!(
                            found, EVENTS,
                            "events are missing, and the reader is not reset"
                        );
                    }
                })
            })
            .collect();
        drop_expired(&log).await;
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(count(&mut connection, "realtime.events").await, 0);
    }
}

/// A snapshot's text, read without the code under test.
fn sees(snapshot: &str, xid: u64) -> bool {
    let parts: Vec<&str> = snapshot.split(':').collect();
    let running = parts[2].split(',').filter(|xid| !xid.is_empty());
    xid < parts[1].parse().unwrap() && running.into_iter().all(|ran| ran.parse() != Ok(xid))
}

/// Random transactions, prepared ones among them, and random drops.
struct World {
    database: Database,
    log: Log,
    admin: PgConnection,
    rng: StdRng,
    idle: Vec<PgConnection>,
    /// In a transaction.
    busy: Vec<PgConnection>,
    prepared: Vec<String>,
    /// Positions that readers keep.
    kept: Vec<String>,
    /// The plain truth: the transactions of which events were dropped.
    dropped: BTreeSet<u64>,
    /// Judgements: retained, too old.
    judged: [u32; 2],
}

impl World {
    async fn new(seed: u64) -> Self {
        let database = Database::with_prepared_transactions().await;
        let mut idle = Vec::new();
        for _ in 0..6 {
            idle.push(database.connect().await);
        }
        Self {
            log: log_of(&database),
            admin: database.connect().await,
            database,
            rng: StdRng::seed_from_u64(seed),
            idle,
            busy: Vec::new(),
            prepared: Vec::new(),
            kept: Vec::new(),
            dropped: BTreeSet::new(),
            judged: [0, 0],
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..12) {
            0..2 => self.begin().await,
            2..5 => self.work().await,
            5 => self.end().await,
            6 => self.end_prepared().await,
            7 => self.keep_position().await,
            8..10 => execute(&mut self.admin, "SELECT realtime.rotate('0 s')").await,
            _ => self.drop_partition().await,
        }
    }

    async fn begin(&mut self) {
        let Some(mut connection) = self.idle.pop() else {
            return;
        };
        let levels = ["READ COMMITTED", "REPEATABLE READ; SELECT 1"];
        let level = levels[self.rng.random_range(0..2)];
        execute(&mut connection, &format!("BEGIN ISOLATION LEVEL {level}")).await;
        self.busy.push(connection);
    }

    fn pick(&mut self) -> Option<usize> {
        let count = self.busy.len();
        (count > 0).then(|| self.rng.random_range(0..count))
    }

    /// Takes a number, or writes an event.
    async fn work(&mut self) {
        let Some(at) = self.pick() else { return };
        let statements = [
            "SELECT pg_current_xact_id()",
            "INSERT INTO realtime.events (user_id, kind, payload) VALUES (gen_random_uuid(), 'device', '{}')",
        ];
        let statement = statements[self.rng.random_range(0..2)];
        execute(&mut self.busy[at], statement).await;
    }

    async fn end(&mut self) {
        let Some(at) = self.pick() else { return };
        let mut connection = self.busy.swap_remove(at);
        match self.rng.random_range(0..6) {
            0 if self.prepared.len() < 4 => {
                let gid = Uuid::new_v4().to_string();
                execute(&mut connection, &format!("PREPARE TRANSACTION '{gid}'")).await;
                self.prepared.push(gid);
            }
            1 => execute(&mut connection, "ROLLBACK").await,
            _ => execute(&mut connection, "COMMIT").await,
        }
        self.idle.push(connection);
    }

    async fn end_prepared(&mut self) {
        if self.prepared.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.prepared.len());
        let gid = self.prepared.swap_remove(at);
        let way = ["COMMIT", "ROLLBACK"][self.rng.random_range(0..2)];
        execute(&mut self.admin, &format!("{way} PREPARED '{gid}'")).await;
    }

    async fn position(&mut self) -> String {
        names(&mut self.admin, "SELECT pg_current_snapshot()::text")
            .await
            .swap_remove(0)
    }

    async fn keep_position(&mut self) {
        let position = self.position().await;
        if self.kept.len() == 40 {
            let at = self.rng.random_range(0..40);
            self.kept.swap_remove(at);
        }
        self.kept.push(position);
    }

    /// Drops one closed partition, unless a transaction that runs has written to it.
    async fn drop_partition(&mut self) {
        let closed = names(&mut self.admin, super::CLOSED).await;
        if closed.is_empty() {
            return;
        }
        let partition = &closed[self.rng.random_range(0..closed.len())];
        let mut transaction = self.admin.begin().await.unwrap();
        let lock = format!("LOCK TABLE realtime.{partition} IN ACCESS EXCLUSIVE MODE NOWAIT");
        let locked = sqlx::raw_sql(AssertSqlSafe(lock))
            .execute(&mut *transaction)
            .await;
        if locked.is_err() {
            transaction.rollback().await.unwrap();
            return;
        }
        let written = format!("SELECT DISTINCT xid::text FROM realtime.{partition}");
        let written: Vec<String> = sqlx::query_scalar(AssertSqlSafe(written))
            .fetch_all(&mut *transaction)
            .await
            .unwrap();
        let forget = format!("SELECT realtime.forget('{partition}')");
        execute(&mut transaction, &forget).await;
        transaction.commit().await.unwrap();
        self.dropped
            .extend(written.iter().map(|xid| xid.parse::<u64>().unwrap()));
        self.judge().await;
    }

    async fn is_retained(&self, position: &str) -> bool {
        let snapshot: Snapshot = position.parse().unwrap();
        let page = self
            .log
            .read_user(Uuid::nil(), &snapshot, false)
            .next()
            .await;
        page.unwrap().reading.retained
    }

    /// A position that is judged good has missed nothing that was dropped, and the present one is good.
    async fn judge(&mut self) {
        for position in &self.kept {
            let retained = self.is_retained(position).await;
            self.judged[usize::from(!retained)] += 1;
            let lost = self.dropped.iter().find(|xid| !sees(position, **xid));
            assert!(
                !retained || lost.is_none(),
                "{position} is retained and has not seen {lost:?}"
            );
        }
        let present = self.position().await;
        assert!(
            self.is_retained(&present).await,
            "the present {present} is too old"
        );
    }

    async fn close(mut self) {
        while !self.prepared.is_empty() {
            self.end_prepared().await;
        }
        drop(self.database);
    }
}

#[tokio::test]
async fn a_retained_position_has_missed_nothing_that_was_dropped() {
    let _alone = ALONE.lock().await;
    let mut judged = [0, 0];
    for _ in 0..4 {
        let seed = rand::random();
        println!("seed {seed}");
        let mut world = World::new(seed).await;
        for _ in 0..800 {
            world.step().await;
        }
        judged = [judged[0] + world.judged[0], judged[1] + world.judged[1]];
        world.close().await;
    }
    println!("retained, too old: {judged:?}");
    assert!(judged[0] > 0 && judged[1] > 0, "{judged:?}");
}
