//! Events through the server's database: a row in `messages` for each, committed by a pool of writers.
//!
//! The writers live on a thread of their own. Users, devices and chats are inserted first; they and
//! the messages stay, so the database should be one that can be thrown away. An error of any writer
//! ends the measurement at the next `check`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use uuid::Uuid;

use crate::cli::Usage;
use crate::events::chat_id;

/// Rows of one statement that prepares the database.
const PREPARED_ROWS: usize = 10_000;

#[derive(Debug)]
struct Batch {
    first: u64,
    users: Vec<Uuid>,
}

/// What the writers tell the thread that measures.
#[derive(Debug, Default)]
struct Progress {
    committed: AtomicU64,
    failure: Mutex<Option<anyhow::Error>>,
}

#[derive(Debug)]
pub(crate) struct Commits {
    batches: mpsc::UnboundedSender<Batch>,
    progress: Arc<Progress>,
}

impl Commits {
    /// Connects the writers and inserts the users and the chats with these numbers.
    pub(crate) fn start(
        url: &str,
        writers: u16,
        users: &[Uuid],
        numbers: Range<u64>,
    ) -> anyhow::Result<Self> {
        let options = options(url)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (batches, received) = mpsc::unbounded_channel();
        let progress = Arc::new(Progress::default());
        let (ready, readied) = blocking::channel();
        let (users, told) = (users.to_vec(), Arc::clone(&progress));
        thread::Builder::new()
            .name("commits".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let prepared = prepare(&options, writers, &users, numbers).await;
                    let (prepared, connections) = match prepared {
                        Ok(connections) => (Ok(()), connections),
                        Err(error) => (Err(error), Vec::new()),
                    };
                    // Nobody waits any more when the measurement has been given up.
                    let _ = ready.send(prepared);
                    write_all(connections, received, &told).await;
                });
            })?;
        readied
            .recv()
            .context("the database's thread has ended")??;
        Ok(Self { batches, progress })
    }

    /// A transaction with these events, numbered from `first` on.
    pub(crate) fn send(&self, first: u64, users: Vec<Uuid>) -> anyhow::Result<()> {
        if self.batches.send(Batch { first, users }).is_err() {
            self.check()?;
            bail!("the database's thread has ended");
        }
        Ok(())
    }

    /// Fails if a writer has failed.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut failure = self
            .progress
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }

    /// Events that are committed, since the beginning.
    pub(crate) fn committed(&self) -> u64 {
        self.progress.committed.load(Relaxed)
    }
}

fn options(url: &str) -> anyhow::Result<PgConnectOptions> {
    let options: PgConnectOptions = url
        .parse()
        .map_err(|error| Usage(format!("--database-url: {error}")))?;
    let host = options.get_host();
    let local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if !local {
        return Err(Usage(format!("--database-url: {host} is not on this machine")).into());
    }
    Ok(options)
}

async fn prepare(
    options: &PgConnectOptions,
    writers: u16,
    users: &[Uuid],
    numbers: Range<u64>,
) -> anyhow::Result<Vec<PgConnection>> {
    let mut connections = Vec::new();
    for _ in 0..writers {
        connections.push(
            options
                .connect()
                .await
                .context("connecting to the database")?,
        );
    }
    let Some(connection) = connections.first_mut() else {
        bail!("no writers");
    };
    populate(connection, users, numbers)
        .await
        .context("preparing the database")?;
    Ok(connections)
}

/// Users with one device each, which has its user's id, and a chat for each event.
async fn populate(
    connection: &mut PgConnection,
    users: &[Uuid],
    numbers: Range<u64>,
) -> anyhow::Result<()> {
    for users in users.chunks(PREPARED_ROWS) {
        sqlx::query(
            "INSERT INTO public.users (id, username)
             SELECT u, u::text FROM unnest($1::uuid[]) AS u ON CONFLICT DO NOTHING",
        )
        .bind(users)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO public.devices (id, user_id, identity_pubkey, prekey_pubkey,
                                         signed_prekey_pub, signed_prekey_sig, one_time_prekeys)
             SELECT u, u, u::text, '', '', '', '[]' FROM unnest($1::uuid[]) AS u
             ON CONFLICT DO NOTHING",
        )
        .bind(users)
        .execute(&mut *connection)
        .await?;
    }
    for first in numbers.clone().step_by(PREPARED_ROWS) {
        let end = numbers.end.min(first + PREPARED_ROWS as u64);
        sqlx::query(
            "INSERT INTO public.chats (id, chat_type)
             SELECT lpad(to_hex(n), 32, '0')::uuid, 'group' FROM generate_series($1, $2) AS n",
        )
        .bind(i64::try_from(first)?)
        .bind(i64::try_from(end - 1)?)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("ANALYZE public.users, public.devices, public.chats")
        .execute(connection)
        .await?;
    Ok(())
}

/// Has each connection commit batches until there are no more.
async fn write_all(
    connections: Vec<PgConnection>,
    batches: mpsc::UnboundedReceiver<Batch>,
    progress: &Arc<Progress>,
) {
    let batches = Arc::new(AsyncMutex::new(batches));
    let mut writers = Vec::new();
    for connection in connections {
        let (batches, progress) = (Arc::clone(&batches), Arc::clone(progress));
        writers.push(tokio::spawn(write(connection, batches, progress)));
    }
    drop(batches);
    for writer in writers {
        // A writer that panicked is seen by what is missing.
        let _ = writer.await;
    }
}

async fn write(
    mut connection: PgConnection,
    batches: Arc<AsyncMutex<mpsc::UnboundedReceiver<Batch>>>,
    progress: Arc<Progress>,
) {
    loop {
        let batch = batches.lock().await.recv().await;
        let Some(batch) = batch else { return };
        if let Err(error) = insert(&mut connection, &batch).await {
            let mut failure = progress
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(anyhow::Error::new(error).context("committing messages"));
            return;
        }
        progress
            .committed
            .fetch_add(batch.users.len() as u64, Relaxed);
    }
}

/// One statement, which is one transaction.
async fn insert(connection: &mut PgConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    let chats = (batch.first..).take(batch.users.len()).map(chat_id);
    sqlx::query(
        "INSERT INTO public.messages (logical_msg_id, chat_id, from_user_id, from_device_id,
                                      to_user_id, to_device_id, header, ciphertext)
         SELECT 'm', chat, u, u, u, u, '{}', 'c'
         FROM unnest($1::uuid[], $2::uuid[]) AS m(chat, u)",
    )
    .bind(chats.collect::<Vec<_>>())
    .bind(&batch.users)
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_databases_are_written_to() {
        for url in [
            "postgres://localhost/x",
            "postgres://127.0.0.1:5433/x",
            "postgres:///x?host=/tmp/socket",
        ] {
            assert!(options(url).is_ok(), "{url}");
        }
        for url in [
            "postgres://192.0.2.1/x",
            "postgres://db.example/x",
            "nonsense",
        ] {
            assert!(options(url).unwrap_err().is::<Usage>(), "{url}");
        }
    }
}
