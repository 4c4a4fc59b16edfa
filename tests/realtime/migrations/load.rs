//! `migrate up`, a repair and `migrate down` on large tables, beside writers of all of them. Prints how long a writer
//! waited at most in each; `make bench-migrate` makes it with 1,500,000 rows and judges that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hushnet_realtime::store::migrate;
use sqlx::PgPool;

use crate::support::{Database, User, add_device, add_user, execute, insert_message};

const WRITERS: usize = 8;
/// Of so many transactions of a writer one stays open for a while.
const LONG_EVERY: usize = 20;
/// What a writer may wait at most, in milliseconds, where the machine is judged.
const WAIT_MS_MAX: u64 = 300;

/// Rows of each table; set where the figures are judged.
fn rows() -> Option<u32> {
    let rows = std::env::var("MIGRATE_ROWS").ok()?;
    Some(rows.parse().unwrap())
}

async fn fill(db: &PgPool, rows: u32) {
    let mut connection = db.acquire().await.unwrap();
    let statements = format!(
        "SET session_replication_role = replica;
         INSERT INTO users (username) SELECT 'user ' || n FROM generate_series(1, {rows} / 10) AS n;
         INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, signed_prekey_sig,
                              one_time_prekeys)
         SELECT gen_random_uuid(), md5(n::text) || md5(n::text), '', '', '', '[]' FROM generate_series(1, {rows}) AS n;
         INSERT INTO messages (logical_msg_id, from_user_id, to_user_id, header, ciphertext)
         SELECT n, gen_random_uuid(), gen_random_uuid(), '{{}}', repeat('c', 200) FROM generate_series(1, {rows}) AS n;
         SET session_replication_role = origin; ANALYZE"
    );
    execute(&mut connection, &statements).await;
}

/// The longest time that a statement of a writer has taken since this was read last.
#[derive(Default)]
struct Longest {
    us: AtomicU64,
    ended: AtomicBool,
}

impl Longest {
    async fn timed<T>(&self, statement: impl Future<Output = T>) {
        let begun = Instant::now();
        statement.await;
        let us = u64::try_from(begun.elapsed().as_micros()).unwrap();
        self.us.fetch_max(us, Ordering::Relaxed);
    }

    fn take_ms(&self) -> u64 {
        self.us.swap(0, Ordering::Relaxed) / 1_000
    }
}

async fn write(db: PgPool, user: User, longest: Arc<Longest>) {
    for turn in 0.. {
        if longest.ended.load(Ordering::Relaxed) {
            return;
        }
        if turn % LONG_EVERY == 0 {
            let mut transaction = db.begin().await.unwrap();
            longest
                .timed(insert_message(&mut *transaction, None, &user, &user))
                .await;
            // Others have to wait for its end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            transaction.commit().await.unwrap();
            continue;
        }
        longest.timed(insert_message(&db, None, &user, &user)).await;
        longest.timed(add_device(&db, user.id)).await;
        let seen = "UPDATE devices SET last_seen = now() WHERE id = $1";
        let seen = sqlx::query(seen).bind(user.device_id).execute(&db);
        longest.timed(seen).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_go_on_over_large_tables() {
    let database = Database::as_delivered().await;
    let url = database.owner();
    let db = database.pool_of(WRITERS).await;
    let admin = database.admin_pool().await;
    fill(&admin, rows().unwrap_or(20_000)).await;
    let longest = Arc::new(Longest::default());
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let user = add_user(&db).await;
        writers.push(tokio::spawn(write(db.clone(), user, Arc::clone(&longest))));
    }
    tokio::time::sleep(Duration::from_secs(u64::from(rows().is_some()) * 10)).await;
    println!("before: a writer waited {} ms at most", longest.take_ms());
    let mut connection = database.connect().await;
    for step in ["up", "repair", "down"] {
        if step == "repair" {
            // Itself a change that waits for the writers, so it is not judged.
            execute(&mut connection, "DROP TRIGGER realtime_devices ON devices").await;
            longest.take_ms();
        }
        let begun = Instant::now();
        match step {
            "down" => migrate::down(&url).await.unwrap(),
            _ => drop(migrate::up(&url).await.unwrap()),
        }
        let (took, waited) = (begun.elapsed(), longest.take_ms());
        println!("{step} took {took:.1?}: a writer waited {waited} ms at most");
        assert!(rows().is_none() || waited <= WAIT_MS_MAX, "{waited} ms");
    }
    longest.ended.store(true, Ordering::Relaxed);
    for writer in writers {
        // A writer that was refused has panicked.
        writer.await.unwrap();
    }
}
