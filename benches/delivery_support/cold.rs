//! A client comes back after days: only the log can serve it.
//!
//! The log holds events of many users over six days of partitions, in real transactions of 20 rows,
//! each row for another user, so that a user's events lie far apart on disk and their transactions are
//! all over the range of numbers, as they do after days. A cursor that sees everything before a
//! user's k-th last event is then resumed against a server that has just started.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hushnet_realtime::config::{DatabaseUrl, Ingest};
use hushnet_realtime::protocol::Cursor;
use hushnet_realtime::store::{COUNTED_MAX, Log, PAGE_BYTES_MAX, PAGE_EVENTS};
use hushnet_testkit::database::execute;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::client::{Client, chat_id};
use super::report::{Report, Samples, Table, load_average, micros, millis};
use super::stack::{Stack, resumes, start_server};

const DATABASE: &str = "cold";
const DAYS: u32 = 6;
const ROWS: u32 = 20;
/// Events that a client has missed.
const MISSED: [u32; 3] = [1, 10, 100];
/// Tells the connection whose statement is explained.
const READER: &str = "delivery-cold";

pub(crate) struct Plan {
    pub(crate) way: Ingest,
    pub(crate) log_rows: u32,
    pub(crate) users: u32,
    /// Users whose resume is measured, for each number of missed events.
    pub(crate) samples: u32,
}

/// Fills a log and resumes from it; says how many events were lost.
pub(crate) async fn run(stack: &Stack, report: &mut Report, plan: &Plan) -> anyhow::Result<u64> {
    let before = load_average();
    let mut connection = stack.create(DATABASE).await?;
    let filled = fill(&mut connection, plan).await?;
    let mut table = Table::new(&[
        "missed",
        "users",
        "client ms",
        "plain ms",
        "difference",
        "read p50 ms",
        "p99 ms",
        "executed p50 ms",
        "p99 ms",
        "planned p50 ms",
        "replays",
        "lost",
    ]);
    let (mut rows, mut lost) = (Vec::new(), 0);
    for missed in MISSED {
        let outcome = measure(stack, &mut connection, plan, missed)
            .await
            .with_context(|| format!("{missed} missed"))?;
        lost += outcome.lost;
        table.row(outcome.cells());
        rows.push(outcome.json());
    }
    report.add("cold", &table, &rows, &before)?;
    println!(
        "  {} rows of {} users over {DAYS} days, {} MB with indexes, written in {:.0} s; client: from \
         connecting to the last missed event, plain: to the hello without a cursor, both medians; read: \
         the log's read by this process; executed and planned: the same statement by EXPLAIN ANALYZE; \
         replays: from the log, by the server's count",
        plan.log_rows,
        plan.users,
        filled.megabytes,
        filled.took.as_secs_f64()
    );
    Ok(lost)
}

struct Filled {
    megabytes: i64,
    took: Duration,
}

/// Writes the log as the days would have.
async fn fill(connection: &mut PgConnection, plan: &Plan) -> anyhow::Result<Filled> {
    let begun = Instant::now();
    let Plan {
        log_rows, users, ..
    } = plan;
    execute(
        connection,
        &format!(
            "SET synchronous_commit = off;
             UPDATE realtime.partitions SET opened_at = now() - interval '{DAYS} days' * (8 - slot) / 8,
                 closed_at = CASE WHEN slot < 7 THEN now() - interval '{DAYS} days' * (7 - slot) / 8 END
             WHERE slot < 8;
             UPDATE realtime.state SET slot = 7;"
        ),
    )
    .await;
    // A DO that commits must be a statement of its own.
    execute(
        connection,
        &format!(
            "DO $$
             DECLARE
                 oldest timestamptz := clock_timestamp() - interval '{DAYS} days';
             BEGIN
                 FOR begun IN 0..{log_rows} - 1 BY {ROWS} LOOP
                     INSERT INTO realtime.log (slot, id, user_key, source, fields, created_at)
                     SELECT 8 * n / {log_rows}, n + 1, u, 1, ARRAY[to_json(lpad(to_hex(n), 32, '0')::uuid)::text],
                         oldest + interval '{DAYS} days' * n / {log_rows}
                     FROM generate_series(begun, least(begun + {ROWS}, {log_rows}) - 1) AS n,
                          LATERAL (SELECT lpad(to_hex(n % {users}), 32, '0')::uuid AS u) AS users;
                     COMMIT;
                 END LOOP;
             END $$"
        ),
    )
    .await;
    let took = begun.elapsed();
    execute(
        connection,
        &format!("SELECT setval('realtime.events_id_seq', {log_rows} + 1)"),
    )
    .await;
    execute(connection, "VACUUM (ANALYZE) realtime.log").await;
    execute(connection, "CHECKPOINT").await;
    let megabytes = sqlx::query_scalar(
        "SELECT sum(pg_total_relation_size(inhrelid))::bigint >> 20
         FROM pg_inherits WHERE inhparent = 'realtime.log'::regclass",
    )
    .fetch_one(connection)
    .await?;
    Ok(Filled { megabytes, took })
}

struct Outcome {
    missed: u32,
    users: u32,
    /// From connecting to the last missed event.
    client: Samples,
    /// The first of all clients, whose server has just opened its connections.
    first: Duration,
    /// From connecting to the `hello`, without a cursor.
    plain: Samples,
    read: Samples,
    explained: Explained,
    replays: f64,
    lost: u64,
}

/// A user and the cursor that it comes back with.
struct Away {
    user_id: Uuid,
    cursor: String,
}

async fn measure(
    stack: &Stack,
    connection: &mut PgConnection,
    plan: &Plan,
    missed: u32,
) -> anyhow::Result<Outcome> {
    let away = choose(connection, plan, missed).await?;
    let server = start_server(stack, DATABASE, plan.way).await;
    let (_, replays_before) = resumes(&server).await;
    let (mut client, mut lost) = (Vec::new(), 0);
    for Away { user_id, cursor } in &away {
        let begun = Instant::now();
        let (mut connected, hello) =
            Client::connect(server.address(), *user_id, Some(cursor)).await?;
        ensure!(hello.resumed, "{cursor} was not resumed");
        for _ in 0..hello.replayed {
            connected.next().await?;
        }
        client.push(begun.elapsed());
        lost += u64::from(missed).saturating_sub(hello.replayed);
        ensure!(
            hello.replayed <= u64::from(missed),
            "{} events instead of {missed}",
            hello.replayed
        );
    }
    let (_, replays) = resumes(&server).await;
    let mut without = Vec::new();
    for Away { user_id, .. } in &away {
        let begun = Instant::now();
        Client::connect(server.address(), *user_id, None).await?;
        without.push(begun.elapsed());
    }
    server.program.kill().await;

    let (read, statement) = read_directly(stack, connection, &away, missed).await?;
    let explained = explain(stack, &statement, &away).await?;
    Ok(Outcome {
        missed,
        users: plan.samples,
        first: client[0],
        client: Samples::new(client),
        plain: Samples::new(without),
        read,
        explained,
        replays: replays - replays_before,
        lost,
    })
}

/// Users that are different for each number of missed events, so that their pages are cold too.
async fn choose(
    connection: &mut PgConnection,
    plan: &Plan,
    missed: u32,
) -> anyhow::Result<Vec<Away>> {
    // No server is there whose barriers flush, and only the history is wanted.
    let present: String = sqlx::query_scalar("SELECT realtime.unflushed_cursor()")
        .fetch_one(&mut *connection)
        .await?;
    let (epoch, _) = present.split_once('.').context("no cursor")?;
    let mut away = Vec::new();
    for sample in 0..plan.samples {
        // A prime number of steps: all over the users, and no two the same.
        let user = (u64::from(sample * 3 + missed % 3) * 7_919) % u64::from(plan.users);
        let user_id = chat_id(usize::try_from(user)?);
        let xid: String = sqlx::query_scalar(
            "SELECT xid::text AS text FROM realtime.events WHERE user_id = $1
             ORDER BY xid DESC OFFSET $2 - 1 LIMIT 1",
        )
        .bind(user_id)
        .bind(i64::from(missed))
        .fetch_one(&mut *connection)
        .await?;
        away.push(Away {
            user_id,
            cursor: format!("{epoch}.{xid}:{xid}:"),
        });
    }
    Ok(away)
}

/// The same reads by this process over one connection, and their statement as PostgreSQL got it.
async fn read_directly(
    stack: &Stack,
    connection: &mut PgConnection,
    away: &[Away],
    missed: u32,
) -> anyhow::Result<(Samples, String)> {
    let url: DatabaseUrl = stack.url(DATABASE).parse().map_err(anyhow::Error::msg)?;
    let log = Log::new(url.options().application_name(READER), 1);
    log.read_kinds().await?;
    let mut read = Vec::new();
    for Away { user_id, cursor } in away {
        let cursor: Cursor = cursor.parse()?;
        let begun = Instant::now();
        let page = log
            .read_user(*user_id, &cursor.snapshot, false)
            .next()
            .await?;
        read.push(begun.elapsed());
        ensure!(page.signals.len() == missed as usize, "another page");
    }
    let statement = sqlx::query_scalar(
        "SELECT query FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'WITH reading%' LIMIT 1",
    )
    .bind(READER)
    .fetch_one(connection)
    .await?;
    log.close().await;
    Ok((Samples::new(read), statement))
}

struct Explained {
    planned: Samples,
    executed: Samples,
    /// The last one.
    plan: Vec<String>,
}

/// How long PostgreSQL itself says that planning and executing took.
async fn explain(stack: &Stack, statement: &str, away: &[Away]) -> anyhow::Result<Explained> {
    let mut connection = stack.connect(DATABASE).await;
    execute(
        &mut connection,
        &format!(
            "PREPARE cold (text, uuid, bigint, boolean, bigint, bigint, bigint, text[], smallint[], smallint[]) AS \
             {statement}"
        ),
    )
    .await;
    let (mut planned, mut executed) = (Vec::new(), Vec::new());
    let mut last_plan = Vec::new();
    for Away { user_id, cursor } in away {
        let snapshot = cursor.split_once('.').context("no cursor")?.1;
        let explain = format!(
            "EXPLAIN (ANALYZE, BUFFERS) EXECUTE cold \
             ('{snapshot}', '{user_id}', {}, false, {PAGE_EVENTS}, {PAGE_BYTES_MAX}, {COUNTED_MAX} + 1, NULL, '{{}}', '{{}}')",
            i64::MIN
        );
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut connection)
            .await?;
        let time = |name: &str| {
            let line = plan.iter().find_map(|line| line.strip_prefix(name))?;
            let millis: f64 = line.strip_suffix(" ms")?.parse().ok()?;
            Some(Duration::from_secs_f64(millis / 1_000.0))
        };
        planned.extend(time("Planning Time: "));
        executed.extend(time("Execution Time: "));
        last_plan = plan;
    }
    Ok(Explained {
        planned: Samples::new(planned),
        executed: Samples::new(executed),
        plan: last_plan,
    })
}

impl Outcome {
    fn difference(&self) -> Duration {
        self.client.median().saturating_sub(self.plain.median())
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.missed.to_string(),
            self.users.to_string(),
            millis(self.client.median()),
            millis(self.plain.median()),
            millis(self.difference()),
            millis(self.read.median()),
            millis(self.read.per_mille(990)),
            millis(self.explained.executed.median()),
            millis(self.explained.executed.per_mille(990)),
            millis(self.explained.planned.median()),
            self.replays.to_string(),
            self.lost.to_string(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "missed": self.missed,
            "users": self.users,
            "client": self.client.json(),
            "client_first_us": micros(self.first),
            "plain": self.plain.json(),
            "difference_us": micros(self.difference()),
            "read": self.read.json(),
            "executed": self.explained.executed.json(),
            "planned": self.explained.planned.json(),
            "plan": self.explained.plan,
            "replays_from_log": self.replays,
            "lost": self.lost,
        })
    }
}
