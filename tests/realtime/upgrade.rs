//! A rolling upgrade: the program of the release before and this one, on the schema of before and on the present one.
//!
//! `make test-upgrade` builds the program of the release before and names it in `RELEASE_BEFORE`. Without it these
//! tests say that they were not made.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use hushnet_testkit::program;
use hushnet_testkit::server::Server;
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::schema::assert_valid_frame;
use crate::support::{Client, Database, User, add_user, execute, insert_message, soon, until};

/// The newest migration of the release before.
const SCHEMA_BEFORE: i64 = 4;
const PRESENT: &str = env!("CARGO_BIN_EXE_hushnet-realtime");

fn release_before() -> Option<OsString> {
    let program = std::env::var_os("RELEASE_BEFORE");
    if program.is_none() {
        println!("not made: RELEASE_BEFORE names no program; see `make test-upgrade`");
    }
    program
}

async fn serve(program: impl AsRef<OsStr>, database: &Database) -> Server {
    let mut command = program::command(program);
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--barrier-interval-ms",
            "100",
        ])
        .args(["--database-url", &database.url]);
    let server = Server::start(&mut command).await;
    server.until_ready().await;
    server
}

/// A client of one server, with the cursor and the events that it has got.
struct V1 {
    client: Client,
    cursor: String,
    chats: BTreeSet<String>,
    resets: Vec<String>,
}

impl V1 {
    async fn connect(server: &Server, bob: &User, since: Option<&str>) -> Self {
        let since = since.map_or(String::new(), |since| format!("&since={since}"));
        let url = format!("ws://{}/ws?user_id={}{since}", server.address(), bob.id);
        let headers = [("sec-websocket-protocol", "hushnet.v1")];
        let request = hushnet_testkit::client::request(&url, &headers);
        let connecting = Client::connect(request, None, assert_valid_frame);
        let (client, _) = connecting.await.unwrap();
        Self {
            client,
            cursor: String::new(),
            chats: BTreeSet::new(),
            resets: Vec::new(),
        }
    }

    async fn take(&mut self) -> Value {
        let frame = soon("a frame", self.client.next_json()).await;
        if let Some(cursor) = frame["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
        match frame["type"].as_str().unwrap() {
            "message" => {
                self.chats
                    .insert(frame["chat_id"].as_str().unwrap().to_owned());
            }
            "reset" => self
                .resets
                .push(frame["reason"].as_str().unwrap().to_owned()),
            _ => {}
        }
        frame
    }

    /// Takes frames until this message has come.
    async fn until_chat(&mut self, chat: &str) {
        while !self.chats.contains(chat) {
            self.take().await;
        }
    }
}

struct Scene {
    database: Database,
    db: PgPool,
    alice: User,
    bob: User,
}

impl Scene {
    async fn set(ingest: &str) -> Self {
        let database = Database::migrated_to(SCHEMA_BEFORE).await;
        let mut connection = database.connect().await;
        let set = format!("UPDATE realtime.state SET ingest = '{ingest}'");
        execute(&mut connection, &set).await;
        let db = database.pool().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        Self {
            database,
            db,
            alice,
            bob,
        }
    }

    /// The program of the release before and this one, with a client each.
    async fn start_both(&self, before: &OsStr) -> (Server, Server, [V1; 2]) {
        let old = serve(before, &self.database).await;
        let new = serve(PRESENT, &self.database).await;
        let clients = [
            V1::connect(&old, &self.bob, None).await,
            V1::connect(&new, &self.bob, None).await,
        ];
        (old, new, clients)
    }

    /// Writes a message, in a chat of its own. Returns the chat's id.
    async fn write(&self) -> String {
        let chat: Uuid =
            sqlx::query_scalar("INSERT INTO chats (chat_type) VALUES ('group') RETURNING id")
                .fetch_one(&self.db)
                .await
                .unwrap();
        insert_message(&self.db, Some(chat), &self.alice, &self.bob).await;
        chat.to_string()
    }

    /// Each client gets new messages, until its cursor has moved on: that of a server whose position stands still does
    /// not.
    async fn all_get(&self, clients: &mut [V1]) {
        let before: Vec<String> = clients.iter().map(|client| client.cursor.clone()).collect();
        until("every cursor moves on", async || {
            let chat = self.write().await;
            for client in &mut *clients {
                client.until_chat(&chat).await;
            }
            let moved = clients.iter().zip(&before);
            moved
                .into_iter()
                .all(|(client, before)| client.cursor != *before)
        })
        .await;
    }

    /// A client of this server that comes back to it is resumed.
    async fn is_resumed_by(&self, server: &Server, cursor: &str) {
        until("the server resumes its own cursors", async || {
            let mut client = V1::connect(server, &self.bob, Some(cursor)).await;
            client.take().await["resumed"] == true
        })
        .await;
    }
}

async fn both_programs_serve_both_schemas(ingest: &str) {
    let Some(before) = release_before() else {
        return;
    };
    let scene = Scene::set(ingest).await;
    let (old, new, mut clients) = scene.start_both(&before).await;
    scene.all_get(&mut clients).await;
    // On the schema of before, cursors are good at both.
    for (server, client) in [(&new, &clients[0]), (&old, &clients[1])] {
        scene.is_resumed_by(server, &client.cursor).await;
    }

    scene.database.up().await;
    for _ in 0..3 {
        scene.all_get(&mut clients).await;
    }
    assert_eq!(
        clients[0].resets,
        Vec::<String>::new(),
        "the old program knows no history"
    );
    assert!(clients[1].resets.iter().all(|reason| reason == "history"));
    assert!(clients[1].resets.len() <= 1, "{:?}", clients[1].resets);
    scene.is_resumed_by(&old, &clients[0].cursor).await;
    scene.is_resumed_by(&new, &clients[1].cursor).await;
    // What the other program has given out is told with a reset, and never resumed as good.
    for (server, client) in [(&new, &clients[0]), (&old, &clients[1])] {
        let mut moved = V1::connect(server, &scene.bob, Some(&client.cursor)).await;
        assert_eq!(moved.take().await["resumed"], false);
        assert_eq!(moved.take().await["reason"], "history");
    }

    // Both begin anew on the present schema.
    drop(clients);
    let (old, new, mut clients) = scene.start_both(&before).await;
    for _ in 0..3 {
        scene.all_get(&mut clients).await;
    }
    for (server, client) in [(&old, &clients[0]), (&new, &clients[1])] {
        scene.is_resumed_by(server, &client.cursor).await;
        assert_eq!(client.resets, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_rolling_upgrade_with_notify() {
    both_programs_serve_both_schemas("notify").await;
}

#[tokio::test]
async fn a_rolling_upgrade_with_tail() {
    both_programs_serve_both_schemas("tail").await;
}

#[tokio::test]
async fn a_rolling_upgrade_with_adaptive() {
    both_programs_serve_both_schemas("adaptive").await;
}
