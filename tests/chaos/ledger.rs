//! The writers' own record of every message that they wrote.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use sqlx::PgConnection;
use uuid::Uuid;

/// How a message's transaction ended, as its writer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    Open,
    Committed,
    RolledBack,
    /// The connection died in the COMMIT.
    Unknown,
    /// The COMMIT had returned, and a crash of PostgreSQL took it back.
    TakenBack,
    /// The primary may have committed it, and the standby that was promoted has not had it. Clients may have had it.
    LeftBehind,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// The recipient, by number.
    pub user: usize,
    pub outcome: Outcome,
    /// The clock before the INSERT was sent.
    pub started: u64,
    /// The clock after the COMMIT had returned; `u64::MAX` if it never did.
    pub ended: u64,
    /// When the COMMIT had returned.
    pub ended_at: Option<Instant>,
}

/// All messages of a scenario. A message's number is its index, and part of its `chat_id`.
#[derive(Debug)]
pub struct Ledger {
    /// Tells this scenario's messages from all others.
    tag: u64,
    /// Orders what writers do: A was committed before B was written if A's COMMIT had returned at an
    /// earlier time than B's INSERT was sent.
    clock: AtomicU64,
    records: Mutex<Vec<Record>>,
}

impl Ledger {
    pub fn new(tag: u64) -> Self {
        Self {
            tag,
            clock: AtomicU64::new(1),
            records: Mutex::default(),
        }
    }

    /// A message for each of these users is about to be sent to the database; their numbers.
    pub fn begin(&self, users: &[usize]) -> Vec<usize> {
        let started = self.clock.fetch_add(1, SeqCst);
        let mut records = self.records.lock().unwrap();
        let first = records.len();
        records.extend(users.iter().map(|user| Record {
            user: *user,
            outcome: Outcome::Open,
            started,
            ended: u64::MAX,
            ended_at: None,
        }));
        (first..records.len()).collect()
    }

    /// The transaction of these messages has ended.
    pub fn end(&self, messages: &[usize], outcome: Outcome) {
        let (ended, now) = (self.clock.fetch_add(1, SeqCst), Instant::now());
        let mut records = self.records.lock().unwrap();
        for message in messages {
            let record = &mut records[*message];
            record.outcome = outcome;
            if outcome == Outcome::Committed {
                (record.ended, record.ended_at) = (ended, Some(now));
            }
        }
    }

    /// The `chat_id` that names this message.
    pub fn name(&self, message: usize) -> Uuid {
        Uuid::from_u64_pair(self.tag, message as u64)
    }

    /// The message of that name; `None` if no writer has used it.
    pub fn message(&self, name: Uuid) -> Option<usize> {
        let (tag, number) = name.as_u64_pair();
        let message = usize::try_from(number).ok()?;
        (tag == self.tag && message < self.len()).then_some(message)
    }

    pub fn len(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    pub fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    /// Every message that the database has, by number.
    pub async fn stored(&self, connection: &mut PgConnection) -> Result<Vec<usize>, sqlx::Error> {
        let names: Vec<Uuid> = sqlx::query_scalar("SELECT chat_id FROM messages")
            .fetch_all(connection)
            .await?;
        Ok(names.into_iter().filter_map(|n| self.message(n)).collect())
    }

    /// Of the messages with numbers below `before`, what the database does not have may have been in the primary of before:
    /// it is neither due nor forbidden. All writers have ended.
    pub async fn leave_behind(&self, connection: &mut PgConnection, before: usize) {
        let stored: HashSet<usize> = self.stored(connection).await.unwrap().into_iter().collect();
        let mut records = self.records.lock().unwrap();
        for (message, record) in records.iter_mut().enumerate().take(before) {
            if record.outcome != Outcome::RolledBack && !stored.contains(&message) {
                (record.outcome, record.ended, record.ended_at) =
                    (Outcome::LeftBehind, u64::MAX, None);
            }
        }
    }

    /// Looks up the outcomes that the writers do not know. All writers have ended. Of writers that commit
    /// `asynchronous`ly, a crash may have taken back what they have seen committed.
    pub async fn resolve(&self, connection: &mut PgConnection, asynchronous: bool) {
        let stored: HashSet<usize> = self.stored(connection).await.unwrap().into_iter().collect();
        for (message, record) in self.records.lock().unwrap().iter_mut().enumerate() {
            let there = stored.contains(&message);
            match record.outcome {
                Outcome::Unknown | Outcome::Open if there => record.outcome = Outcome::Committed,
                Outcome::Unknown | Outcome::Open => record.outcome = Outcome::RolledBack,
                Outcome::LeftBehind if !there => {}
                Outcome::Committed if asynchronous && !there => {
                    (record.outcome, record.ended, record.ended_at) =
                        (Outcome::TakenBack, u64::MAX, None);
                }
                known => assert_eq!(
                    known == Outcome::Committed,
                    there,
                    "PostgreSQL and the writer disagree about message {message}"
                ),
            }
        }
    }
}
