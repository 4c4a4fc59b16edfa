//! The application: transactions of every shape, from several connections.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::{Ledger, Outcome};

/// The size of a payload that is too long for NOTIFY.
const LONG_BYTES: i32 = 9_000;
/// The longest pause in quiet times, for each writer that there is: so few events that a server sleeps.
const QUIET_PACE: Duration = Duration::from_millis(100);
/// Statements in a hundred whose events are of a kind of the application's own.
const ORDERS_PERCENT: i32 = 20;
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// The application's own limit: a dead connection to PostgreSQL may not return an error.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings and the ledger that all writers of a scenario share.
#[derive(Debug)]
pub struct Application {
    pub ledger: Arc<Ledger>,
    pub users: Vec<Uuid>,
    pub database: PgConnectOptions,
    /// The longest pause between two transactions.
    pub pace: Duration,
    /// How many of them share the load.
    pub writers: usize,
    /// Whether the application has little to write just now.
    pub quiet: AtomicBool,
    /// How long a long transaction stays open, in milliseconds.
    pub long_ms: Range<u64>,
    /// Messages of one statement, at most.
    pub rows_max: usize,
    /// Transactions in a hundred whose event is too long to be notified.
    pub by_reference: i32,
}

impl Application {
    fn pace(&self) -> Duration {
        if self.quiet.load(Ordering::Relaxed) {
            QUIET_PACE * u32::try_from(self.writers).unwrap()
        } else {
            self.pace
        }
    }
}

/// One connection of the application.
#[derive(Debug)]
pub struct Writer {
    application: Arc<Application>,
    rng: StdRng,
    /// Messages of the transaction that is open, which share its end.
    open: Vec<usize>,
}

impl Writer {
    pub fn new(application: Arc<Application>, seed: u64) -> Self {
        Self {
            application,
            rng: StdRng::seed_from_u64(seed),
            open: Vec::new(),
        }
    }

    /// Writes until it is stopped, whatever happens to the database.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut connection: Option<PgConnection> = None;
        while !stop.is_cancelled() {
            let pace = u64::try_from(self.application.pace().as_millis()).unwrap();
            let pause = Duration::from_millis(self.rng.random_range(0..=pace));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            let usable = match connection.take() {
                Some(usable) => Ok(usable),
                None => self.application.database.connect().await,
            };
            let Ok(mut usable) = usable else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let done = tokio::time::timeout(TRANSACTION_TIMEOUT, self.transaction(&mut usable));
            if matches!(done.await, Ok(Ok(()))) {
                connection = Some(usable);
            }
            // No COMMIT was sent for the messages that are still open: closing the connection rolls them back.
            self.end(Outcome::RolledBack);
        }
        if let Some(connection) = connection {
            let _ = connection.close().await;
        }
    }

    async fn transaction(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let by_reference = self.rng.random_range(0..100) < self.application.by_reference;
        match self.rng.random_range(0..100) {
            0..40 if !by_reference => {
                // Without a BEGIN the statement itself commits.
                let users = self.recipients(1..4);
                let messages = self.begin(&users);
                self.open.clear();
                self.application.ledger.end(&messages, Outcome::Unknown);
                self.insert(connection, &users, &messages).await?;
                self.application.ledger.end(&messages, Outcome::Committed);
                return Ok(());
            }
            shape => {
                run(connection, "BEGIN").await?;
                match shape {
                    _ if by_reference => self.by_reference(connection).await?,
                    40..70 => self.statements(connection).await?,
                    70..80 => {
                        self.statements(connection).await?;
                        run(connection, "ROLLBACK").await?;
                        self.end(Outcome::RolledBack);
                        return Ok(());
                    }
                    80..94 => self.savepoints(connection).await?,
                    _ => self.long(connection).await?,
                }
            }
        }
        let messages = std::mem::take(&mut self.open);
        // From here on only the database knows the outcome.
        self.application.ledger.end(&messages, Outcome::Unknown);
        run(connection, "COMMIT").await?;
        self.application.ledger.end(&messages, Outcome::Committed);
        Ok(())
    }

    async fn statements(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for _ in 0..self.rng.random_range(1..4) {
            self.send(connection, 1..self.application.rows_max).await?;
            self.pause(0..10).await;
        }
        Ok(())
    }

    async fn savepoints(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.send(connection, 1..3).await?;
        for _ in 0..self.rng.random_range(1..4) {
            run(connection, "SAVEPOINT s").await?;
            let kept = self.open.len();
            self.send(connection, 1..4).await?;
            self.pause(0..5).await;
            if self.rng.random_bool(0.5) {
                run(connection, "ROLLBACK TO s").await?;
                let undone = self.open.split_off(kept);
                self.application.ledger.end(&undone, Outcome::RolledBack);
            } else {
                run(connection, "RELEASE s").await?;
            }
        }
        self.send(connection, 1..2).await
    }

    async fn long(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.send(connection, 1..3).await?;
        self.pause(self.application.long_ms.clone()).await;
        self.send(connection, 1..3).await
    }

    /// An event that is too long to be notified, as a trigger with a larger payload would emit it.
    async fn by_reference(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let users = self.recipients(1..2);
        let messages = self.begin(&users);
        let name = self.application.ledger.name(messages[0]);
        sqlx::query(
            "INSERT INTO messages (logical_msg_id, chat_id, header, ciphertext)
             VALUES ('m', $1, '{}', '')",
        )
        .bind(name)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "SELECT realtime.emit('messages_channel', $2, 'message', json_build_object(
                'type', 'message', 'chat_id', $1::uuid, 'user_id', $2::uuid,
                'padding', repeat('x', $3)))",
        )
        .bind(name)
        .bind(self.application.users[users[0]])
        .bind(LONG_BYTES)
        .execute(connection)
        .await
        .map(drop)
    }

    async fn send(
        &mut self,
        connection: &mut PgConnection,
        count: Range<usize>,
    ) -> Result<(), sqlx::Error> {
        let users = self.recipients(count);
        let messages = self.begin(&users);
        self.insert(connection, &users, &messages).await
    }

    fn begin(&mut self, users: &[usize]) -> Vec<usize> {
        let messages = self.application.ledger.begin(users);
        self.open.extend(&messages);
        messages
    }

    async fn insert(
        &mut self,
        connection: &mut PgConnection,
        users: &[usize],
        messages: &[usize],
    ) -> Result<(), sqlx::Error> {
        let recipients: Vec<Uuid> = users.iter().map(|u| self.application.users[*u]).collect();
        let ledger = &self.application.ledger;
        let names: Vec<Uuid> = messages.iter().map(|m| ledger.name(*m)).collect();
        if self.rng.random_range(0..100) < ORDERS_PERCENT {
            insert_orders(connection, &names, &recipients).await
        } else {
            insert_messages(connection, &names, &recipients).await
        }
    }

    /// Some users get more than others.
    fn recipients(&mut self, count: Range<usize>) -> Vec<usize> {
        let users = self.application.users.len();
        let count = self.rng.random_range(count);
        let mut pick = || {
            self.rng
                .random_range(0..users)
                .min(self.rng.random_range(0..users))
        };
        (0..count).map(|_| pick()).collect()
    }

    async fn pause(&mut self, ms: Range<u64>) {
        let ms = self.rng.random_range(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn end(&mut self, outcome: Outcome) {
        let messages = std::mem::take(&mut self.open);
        self.application.ledger.end(&messages, outcome);
    }
}

/// Inserts a message for each recipient, named by its chat.
pub async fn insert_messages(
    connection: &mut PgConnection,
    names: &[Uuid],
    recipients: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO messages (logical_msg_id, chat_id, to_user_id, header, ciphertext)
         SELECT 'm', name, recipient, '{}', '' FROM unnest($1::uuid[], $2::uuid[]) AS t (name, recipient)",
    )
    .bind(names)
    .bind(recipients)
    .execute(connection)
    .await
    .map(drop)
}

/// The same, with events that are about this long.
pub async fn insert_long(
    connection: &mut PgConnection,
    names: &[Uuid],
    recipients: &[Uuid],
    bytes: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH written AS (
             INSERT INTO messages (logical_msg_id, chat_id, header, ciphertext)
             SELECT 'm', name, '{}', '' FROM unnest($1::uuid[]) AS name
         )
         SELECT realtime.emit('messages_channel', recipient, 'message', json_build_object(
             'type', 'message', 'chat_id', name, 'user_id', recipient, 'padding', repeat('x', $3)))
         FROM unnest($1::uuid[], $2::uuid[]) AS t (name, recipient)",
    )
    .bind(names)
    .bind(recipients)
    .bind(bytes)
    .execute(connection)
    .await
    .map(drop)
}

/// Inserts an order for each recipient, named as a message is, and a message for nobody, which is there for reads of
/// the state.
async fn insert_orders(
    connection: &mut PgConnection,
    names: &[Uuid],
    recipients: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH written AS (
             INSERT INTO messages (logical_msg_id, chat_id, header, ciphertext)
             SELECT 'm', name, '{}', '' FROM unnest($1::uuid[]) AS name
         )
         INSERT INTO orders (chat_id, user_id) SELECT * FROM unnest($1::uuid[], $2::uuid[])",
    )
    .bind(names)
    .bind(recipients)
    .execute(connection)
    .await
    .map(drop)
}

async fn run(connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}
