//! What a table's events cost its writers, by the form of the trigger and the audience.
//!
//! Tables of the same columns, each with another source and one with none, are written in turn over one connection to a
//! private PostgreSQL that flushes nothing: statements of one row, and of many. Each round writes every table, so that
//! what else goes on falls on all. Printed are the least time of a round and its ratio to the table without a source.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::path::Path;
use std::time::Instant;

use hushnet_realtime::store::migrate;
use hushnet_testkit::database::{UNSAFE_SETTINGS, connect, execute, start_cluster};
use sqlx::{AssertSqlSafe, PgConnection};

/// A table's name, and what follows its name in `realtime.add_source`; `None` is no source.
const TABLES: [(&str, Option<&str>); 7] = [
    ("no source", None),
    ("a column", Some("'buyer'")),
    (
        "a column, two fields",
        Some("'buyer', fields => '{status,total}'"),
    ),
    (
        "a column, two fields, what has changed",
        Some("'buyer', fields => '{status,total}', changed => true"),
    ),
    (
        "a column, two fields, a trigger of rows",
        Some("'buyer', fields => '{status,total}', for_rows => true"),
    ),
    (
        "a query, one user",
        Some("'SELECT member FROM public.members WHERE team = 1 AND NEW.total IS NOT NULL'"),
    ),
    (
        "a query, ten users",
        Some("'SELECT member FROM public.members WHERE team = 2 AND NEW.total IS NOT NULL'"),
    ),
];
/// What is written, `$table` being the table and `$n` the number of the round's row.
const WRITES: [(&str, &str, bool); 5] = [
    (
        "INSERT, one row",
        "INSERT INTO $table VALUES ($n, 'new', 1, gen_random_uuid())",
        true,
    ),
    (
        "UPDATE, one row",
        "UPDATE $table SET total = total + 1 WHERE id = $n",
        true,
    ),
    (
        "INSERT, many rows",
        "INSERT INTO $table SELECT n, 'new', 1, gen_random_uuid() FROM generate_series($many) AS n",
        false,
    ),
    (
        "UPDATE, many rows",
        "UPDATE $table SET total = total + 1 WHERE id >= 1000000",
        false,
    ),
    (
        "DELETE, many rows",
        "DELETE FROM $table WHERE id >= 1000000",
        false,
    ),
];

/// How much is measured.
struct Extent {
    rounds: u32,
    singles: u32,
    many: u32,
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let extent = if is_test {
        Extent {
            rounds: 1,
            singles: 3,
            many: 10,
        }
    } else {
        Extent {
            rounds: 7,
            singles: 500,
            many: 20_000,
        }
    };
    let cluster = start_cluster(Path::new(env!("CARGO_TARGET_TMPDIR")), &UNSAFE_SETTINGS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let name = format!("attach_{}", std::process::id());
        execute(
            &mut connect(&cluster.url("postgres")).await,
            &format!("CREATE DATABASE {name}"),
        )
        .await;
        measure(&cluster.url(&name), &extent).await;
        cluster.stop().await.unwrap();
    });
}

async fn measure(url: &str, extent: &Extent) {
    migrate::up(&url.parse().unwrap()).await.unwrap();
    let mut connection = connect(url).await;
    execute(
        &mut connection,
        "UPDATE realtime.state SET ingest = 'tail';
         CREATE TABLE members (team int, member uuid); CREATE INDEX ON members (team);
         INSERT INTO members SELECT 1, gen_random_uuid();
         INSERT INTO members SELECT 2, gen_random_uuid() FROM generate_series(1, 10)",
    )
    .await;
    for (number, (_, source)) in TABLES.iter().enumerate() {
        let table = format!(
            "CREATE TABLE t{number} (id int PRIMARY KEY, status text, total int, buyer uuid)"
        );
        execute(&mut connection, &table).await;
        if let Some(source) = source {
            let add = format!("SELECT realtime.add_source('kind{number}', 't{number}', {source})");
            execute(&mut connection, &add).await;
        }
    }
    let mut least = [[f64::MAX; TABLES.len()]; WRITES.len()];
    for round in 0..extent.rounds {
        for (write, least) in WRITES.iter().zip(&mut least) {
            for (table, least) in least.iter_mut().enumerate() {
                let seconds = time(&mut connection, write, (table, round), extent).await;
                *least = least.min(seconds);
            }
        }
        execute(&mut connection, "TRUNCATE realtime.log").await;
    }
    print(&least, extent);
}

/// The seconds of one statement.
async fn time(
    connection: &mut PgConnection,
    (_, statement, is_single): &(&str, &str, bool),
    (table, round): (usize, u32),
    extent: &Extent,
) -> f64 {
    let (first, last) = (1_000_000, 999_999 + extent.many);
    let statement = statement
        .replace("$table", &format!("t{table}"))
        .replace("$many", &format!("{first}, {last}"));
    let times = if *is_single { extent.singles } else { 1 };
    let began = Instant::now();
    for number in 0..times {
        let row = (round * extent.singles + number).to_string();
        let text = statement.replace("$n", &row);
        sqlx::query(AssertSqlSafe(text))
            .persistent(false)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    began.elapsed().as_secs_f64() / f64::from(times)
}

fn print(least: &[[f64; TABLES.len()]; WRITES.len()], extent: &Extent) {
    println!(
        "many is {} rows; least of {} rounds\n",
        extent.many, extent.rounds
    );
    let heads: Vec<_> = WRITES.iter().map(|(name, ..)| *name).collect();
    println!("| | {} |", heads.join(" | "));
    println!("|---|{}", "---:|".repeat(heads.len()));
    for (table, (name, _)) in TABLES.iter().enumerate() {
        let cells = WRITES.iter().zip(least).map(|((.., is_single), times)| {
            let (seconds, none) = (times[table], times[0]);
            let time = if *is_single {
                format!("{:.0} us", seconds * 1e6)
            } else {
                format!("{:.0} ms", seconds * 1e3)
            };
            format!("{time}, {:.2}", seconds / none)
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}
