//! No event is lost between a read of state and the events after its cursor, whatever commits meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Scene, id, messages_of, state};
use crate::support::{Client, Server, User, add_device, insert_message, until};

/// The writers' choices are those of this seed in every run; how they interleave is not.
const SEED: u64 = 0x5EED;
const WRITERS: u64 = 5;
/// How often state is read, and a client connected with its cursor, while the writers write.
const READS: usize = 25;
/// Transactions that end between one read and the next: at least, and at most. The writers wait for a read
/// that is slow.
const ENDED_PER_READ: usize = 15;
const ENDED_PER_READ_MAX: usize = 25;
/// Chats that stand ready, one for each message: the chat's id tells which message an event is of. Enough
/// for the transactions of all reads, of four messages each. About half are committed, which is less than
/// the rows of one answer: every read is whole.
const CHATS: i32 = 3_000;

/// Tasks that write messages from Alice to Bob until they are stopped, in transactions of one to four
/// messages of which some stay open for long and some are rolled back.
struct Writers {
    tasks: Vec<JoinHandle<()>>,
    book: Arc<Book>,
}

/// The writers' record.
#[derive(Default)]
struct Book {
    chats: Mutex<Vec<Uuid>>,
    committed: Mutex<BTreeSet<Uuid>>,
    ended: AtomicUsize,
    reads_begun: AtomicUsize,
    reads_done: AtomicUsize,
    /// A read has begun or is done.
    read: Notify,
}

impl Writers {
    async fn start(scene: &Scene) -> Self {
        let chats = sqlx::query_scalar(
            "INSERT INTO chats (chat_type) SELECT 'group' FROM generate_series(1, $1) RETURNING id",
        )
        .bind(CHATS)
        .fetch_all(&scene.db)
        .await
        .unwrap();
        let book = Arc::new(Book {
            chats: Mutex::new(chats),
            ..Book::default()
        });
        let tasks = (0..WRITERS)
            .map(|writer| {
                let random = StdRng::seed_from_u64(SEED + writer);
                let (db, book) = (scene.db.clone(), Arc::clone(&book));
                tokio::spawn(write(db, scene.alice, scene.bob, random, book))
            })
            .collect();
        Self { tasks, book }
    }

    /// Waits until some more transactions have ended.
    async fn go_on(&self) {
        self.book.reads_begun.fetch_add(1, Ordering::SeqCst);
        self.book.read.notify_waiters();
        let target = self.book.ended.load(Ordering::SeqCst) + ENDED_PER_READ;
        until("the writers write", async || {
            self.book.ended.load(Ordering::SeqCst) >= target
        })
        .await;
        self.book.reads_done.fetch_add(1, Ordering::SeqCst);
        self.book.read.notify_waiters();
    }

    /// Every message that was committed, by its chat, after all transactions have ended.
    async fn finish(self) -> BTreeSet<Uuid> {
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *self.book.committed.lock().unwrap())
    }
}

async fn write(db: PgPool, from: User, to: User, mut random: StdRng, book: Arc<Book>) {
    loop {
        // Before the counters are looked at: a read that begins or ends in between is not missed.
        let read = book.read.notified();
        if book.reads_done.load(Ordering::SeqCst) >= READS {
            return;
        }
        let reads = book.reads_begun.load(Ordering::SeqCst);
        if book.ended.load(Ordering::SeqCst) >= reads * ENDED_PER_READ_MAX {
            read.await;
            continue;
        }
        let chats = {
            let mut free = book.chats.lock().unwrap();
            let Some(left) = free.len().checked_sub(random.random_range(1..=4)) else {
                return;
            };
            free.split_off(left)
        };
        let mut transaction = db.begin().await.unwrap();
        for chat in &chats {
            insert_message(&mut *transaction, Some(*chat), &from, &to).await;
        }
        // The time that the application keeps the transaction open.
        let open_ms = match random.random_range(0..20) {
            0 => random.random_range(100..400),
            1..8 => random.random_range(1..20),
            _ => random.random_range(0..4),
        };
        tokio::time::sleep(Duration::from_millis(open_ms)).await;
        if random.random_bool(0.2) {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            book.committed.lock().unwrap().extend(chats);
        }
        book.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// The rows of a read of Bob's pending messages, by chat, and its cursor.
struct Shown {
    rows: BTreeSet<Uuid>,
    cursor: String,
}

impl Shown {
    async fn read(scene: &Scene) -> Self {
        let (rows, cursor) = state(&scene.server.get(&messages_of(scene.bob.device_id)).await);
        let shown: BTreeSet<Uuid> = rows.iter().map(|row| id(&row["chat_id"])).collect();
        assert_eq!(shown.len(), rows.len());
        Self {
            rows: shown,
            cursor,
        }
    }

    /// A client that goes on from the cursor.
    async fn connect(&self, server: &Server, user: &User) -> Client {
        let path = format!("/ws?user_id={}&since={}", user.id, self.cursor);
        let mut client = server.connect_to(&path).await;
        let hello = client.next_json().await;
        assert_eq!(hello["type"], "hello", "{hello}");
        assert_eq!(hello["resumed"], true, "{hello}");
        client
    }

    /// Every committed message must be in the rows or among the events, nothing else may, and none in
    /// both unless that is allowed.
    fn check(&self, events: &BTreeSet<Uuid>, committed: &BTreeSet<Uuid>) {
        let seen: BTreeSet<Uuid> = self.rows.union(events).copied().collect();
        let missing: Vec<_> = committed.difference(&seen).collect();
        let phantoms: Vec<_> = seen.difference(committed).collect();
        let twice: Vec<_> = self.rows.intersection(events).collect();
        let what = format!(
            "seed {SEED:#x}, cursor {}, {} rows, {} events, {} committed: \
             {} missing {missing:?}, {} phantoms {phantoms:?}, {} in both {twice:?}",
            self.cursor,
            self.rows.len(),
            events.len(),
            committed.len(),
            missing.len(),
            phantoms.len(),
            twice.len(),
        );
        assert!(missing.is_empty() && phantoms.is_empty(), "{what}");
        assert!(twice.is_empty(), "{what}");
    }
}

/// The chats of the events that the client gets before the marker, each event once.
async fn events_until(marker: Uuid, mut client: Client) -> BTreeSet<Uuid> {
    let mut events = BTreeMap::new();
    loop {
        let frame = client.next_json().await;
        match frame["type"].as_str() {
            Some("message") if frame["chat_id"] == json!(marker) => break,
            Some("message") => {
                let id_of_event = frame["id"].as_i64().expect("an event has an id");
                events.insert(id_of_event, id(&frame["chat_id"]));
            }
            Some("cursor") => {}
            _ => panic!("expected a message, got {frame}"),
        }
    }
    let chats: BTreeSet<Uuid> = events.values().copied().collect();
    assert_eq!(chats.len(), events.len(), "two events for one message");
    chats
}

/// The reads must show something: rows before and messages after, and transactions that were open.
fn assert_telling(reads: &[Shown], committed: &BTreeSet<Uuid>) {
    assert!(
        reads
            .iter()
            .any(|read| !read.rows.is_empty() && read.rows.len() < committed.len())
    );
    assert!(
        reads.iter().any(|read| !read.cursor.ends_with(':')),
        "no transaction was open"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_between_a_read_and_its_cursor() {
    let scene = Scene::set().await;
    let writers = Writers::start(&scene).await;
    let mut reads = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..READS {
        writers.go_on().await;
        let read = Shown::read(&scene).await;
        let client = read.connect(&scene.server, &scene.bob).await;
        clients.push(tokio::spawn(events_until(scene.chat, client)));
        reads.push(read);
    }
    let committed = writers.finish().await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;

    assert_telling(&reads, &committed);
    for (read, events) in reads.iter().zip(clients) {
        read.check(&events.await.unwrap(), &committed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_is_valid_after_a_restart_and_replays_no_row_of_its_read() {
    let mut scene = Scene::set().await;
    let writers = Writers::start(&scene).await;
    let mut reads = Vec::new();
    for _ in 0..READS {
        writers.go_on().await;
        reads.push(Shown::read(&scene).await);
    }
    let committed = writers.finish().await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;

    // The new server can replay from the log alone.
    scene.server.begin_stop();
    let database = scene.server.database().clone();
    scene.server.stopped().await.unwrap();
    let server = Server::start_on(database, |_| {}).await;
    assert_telling(&reads, &committed);
    for read in &reads {
        let client = read.connect(&server, &scene.bob).await;
        let events = events_until(scene.chat, client).await;
        read.check(&events, &committed);
    }
}

#[tokio::test]
async fn devices_and_their_cursor_are_of_one_snapshot() {
    let scene = Scene::set().await;
    let mut transaction = scene.db.begin().await.unwrap();
    sqlx::query("UPDATE devices SET prekey_pubkey = 'new' WHERE id = $1")
        .bind(scene.bob.device_id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let (rows, cursor) = state(
        &scene
            .server
            .get(&format!("/users/{}/devices", scene.bob.id))
            .await,
    );
    assert_eq!(rows[0]["prekey_pubkey"], "");
    // The transaction that was open at the read is an event after it, although later ids came first.
    add_device(&scene.db, scene.alice.id).await;
    transaction.commit().await.unwrap();
    let read = Shown {
        rows: BTreeSet::new(),
        cursor,
    };
    let mut client = read.connect(&scene.server, &scene.bob).await;
    loop {
        let frame = client.next_json().await;
        match frame["type"].as_str() {
            Some("device") => break assert_eq!(frame["user_id"], json!(scene.bob.id)),
            Some("cursor") => {}
            _ => panic!("expected a device, got {frame}"),
        }
    }
}
