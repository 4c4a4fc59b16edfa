//! Writers of an attached table: transactions of some random statements each, of which some are rolled back.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::schemas::Schema;
use crate::settings;

/// The numbers of rows: few, so that transactions meet.
const ROWS: usize = 24;

/// Writes until `stop` is cancelled. Returns how many transactions were committed, as far as it knows.
pub async fn write(
    schema: &'static Schema,
    database: PgConnectOptions,
    seed: u64,
    stop: CancellationToken,
) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut committed = 0;
    while !stop.is_cancelled() {
        let Ok(mut connection) = database.connect().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        while !stop.is_cancelled() {
            let pause = settings::pace().mul_f64(random.random());
            sleep(pause).await;
            match transaction(schema, &mut connection, &mut random).await {
                Ok(()) => committed += 1,
                // A deadlock, or two that insert one row: the transaction is rolled back.
                Err(sqlx::Error::Database(_)) if connection.ping().await.is_ok() => {}
                Err(_) => break,
            }
        }
    }
    committed
}

async fn transaction(
    schema: &Schema,
    connection: &mut PgConnection,
    random: &mut StdRng,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    for _ in 0..random.random_range(1..4) {
        let statement = statement(schema, random);
        let is_kept = random.random_bool(0.9);
        let mut part = transaction.begin().await?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *part)
            .await?;
        if is_kept {
            part.commit().await?;
        } else {
            part.rollback().await?;
        }
    }
    if random.random_bool(0.1) {
        sleep(Duration::from_millis(random.random_range(0..300))).await;
    }
    if random.random_bool(0.85) {
        transaction.commit().await
    } else {
        transaction.rollback().await
    }
}

fn statement(schema: &Schema, random: &mut StdRng) -> String {
    let mut pick = |count: usize| random.random_range(0..count);
    let statement = schema.statements[pick(schema.statements.len())];
    let [one, other] = [pick(schema.users.len()), pick(schema.users.len())];
    let [row, another] = [pick(ROWS), pick(ROWS)].map(|row| row.to_string());
    let value = pick(1_000).to_string();
    [
        ("{n}", &*row),
        ("{m}", &another),
        ("{x}", &value),
        ("{u}", schema.users[one]),
        ("{v}", schema.users[other]),
    ]
    .into_iter()
    .fold(statement.to_owned(), |text, (name, value)| {
        text.replace(name, value)
    })
}
