//! The reads of state: their shapes, filters and bounds, and their errors.

use hushnet_realtime::store::state::PENDING_ROWS_MAX;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{
    Database, Response, Server, User, add_chat, add_device, add_user, cluster, connect, execute,
    insert_message,
};

/// Reads while others write.
mod gap;

fn assert_error(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.json()["error"]["code"], code);
}

/// The rows and the cursor of a successful answer.
fn state(response: &Response) -> (Vec<Value>, String) {
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    let cursor = response.headers["realtime-cursor"].clone();
    assert!(!cursor.is_empty());
    (serde_json::from_str(&response.body).unwrap(), cursor)
}

fn messages_of(device_id: Uuid) -> String {
    format!("/messages/pending/{device_id}")
}

fn id(value: &Value) -> Uuid {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no id: {value}"))
}

/// Two users who know each other, and the service.
struct Scene {
    server: Server,
    db: PgPool,
    alice: User,
    bob: User,
    chat: Uuid,
}

impl Scene {
    async fn set() -> Self {
        Self::set_on(Database::migrated().await).await
    }

    async fn set_on(database: Database) -> Self {
        let db = database.pool().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let chat = add_chat(&db, &alice, &bob).await;
        let server = Server::start_on(database, |_| {}).await;
        Self {
            server,
            db,
            alice,
            bob,
            chat,
        }
    }

    async fn run(&self, sql: &'static str, id: Uuid) {
        sqlx::query(sql).bind(id).execute(&self.db).await.unwrap();
    }

    /// Inserts a message from Alice to Bob and returns its id.
    async fn message(&self, logical_id: &str, age: &str) -> Uuid {
        sqlx::query_scalar(
            "INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id, \
             to_user_id, to_device_id, header, ciphertext, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, '{\"n\": 12, \"dh\": \"é\"}', 'c2VjcmV0', \
             timestamptz '2025-11-02 14:30:00.5Z' - $7::text::interval) RETURNING id",
        )
        .bind(logical_id)
        .bind(self.chat)
        .bind(self.alice.id)
        .bind(self.alice.device_id)
        .bind(self.bob.id)
        .bind(self.bob.device_id)
        .bind(age)
        .fetch_one(&self.db)
        .await
        .unwrap()
    }

    /// Inserts a handshake from Alice's device and returns its id.
    async fn handshake(&self, recipient: Uuid, state: &str, age: &str) -> Uuid {
        sqlx::query_scalar(
            "INSERT INTO pending_sessions (sender_device_id, recipient_device_id, \
             ephemeral_pubkey, sender_prekey_pub, otpk_used, ciphertext, state, created_at) \
             VALUES ($1, $2, 'ek', 'spk', 'otpk', 'c2VjcmV0', $3, \
             timestamp '2025-11-02 14:30:00' - $4::text::interval) RETURNING id",
        )
        .bind(self.alice.device_id)
        .bind(recipient)
        .bind(state)
        .bind(age)
        .fetch_one(&self.db)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn pending_messages_are_those_to_the_device_that_are_not_delivered() {
    let scene = Scene::set().await;
    let newer = scene.message("newer", "1 minute").await;
    let older = scene.message("older", "1 hour").await;
    let delivered = scene.message("delivered", "2 hours").await;
    scene
        .run(
            "UPDATE messages SET delivered_at = now() WHERE id = $1",
            delivered,
        )
        .await;
    let second = User {
        id: scene.bob.id,
        device_id: add_device(&scene.db, scene.bob.id).await,
    };
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &second).await;
    insert_message(&scene.db, Some(scene.chat), &scene.bob, &scene.alice).await;

    let path = messages_of(scene.bob.device_id);
    let response = scene.server.get(&path).await;
    assert!(!response.headers.contains_key("realtime-more"));
    let (rows, _) = state(&response);
    let expected = |id, logical_id, created_at| {
        json!({
            "id": id,
            "logical_msg_id": logical_id,
            "chat_id": scene.chat,
            "from_user_id": scene.alice.id,
            "from_device_id": scene.alice.device_id,
            "to_user_id": scene.bob.id,
            "to_device_id": scene.bob.device_id,
            "header": { "n": 12, "dh": "é" },
            "ciphertext": "c2VjcmV0",
            "created_at": created_at,
        })
    };
    assert_eq!(
        rows,
        [
            expected(older, "older", "2025-11-02T13:30:00.5+00:00"),
            expected(newer, "newer", "2025-11-02T14:29:00.5+00:00"),
        ]
    );
}

#[tokio::test]
async fn a_read_marks_nothing_as_delivered() {
    let scene = Scene::set().await;
    scene.message("m", "0").await;
    let path = messages_of(scene.bob.device_id);
    let (first, _) = state(&scene.server.get(&path).await);
    let (second, _) = state(&scene.server.get(&path).await);
    assert_eq!((first.len(), &first), (1, &second));
    let delivered: i64 =
        sqlx::query_scalar("SELECT count(*) FROM messages WHERE delivered_at IS NOT NULL")
            .fetch_one(&scene.db)
            .await
            .unwrap();
    assert_eq!(delivered, 0);
}

#[tokio::test]
async fn pending_sessions_are_those_to_the_device_that_it_has_not_answered() {
    let scene = Scene::set().await;
    let newer = scene.handshake(scene.bob.device_id, "initiated", "0").await;
    let older = scene
        .handshake(scene.bob.device_id, "initiated", "1 day")
        .await;
    scene.handshake(scene.bob.device_id, "responded", "0").await;
    scene.handshake(scene.bob.device_id, "completed", "0").await;
    let second = add_device(&scene.db, scene.bob.id).await;
    scene.handshake(second, "initiated", "0").await;

    let path = format!("/sessions/pending?device_id={}", scene.bob.device_id);
    let (rows, _) = state(&scene.server.get(&path).await);
    let expected = |id, created_at| {
        json!({
            "id": id,
            "sender_device_id": scene.alice.device_id,
            "recipient_device_id": scene.bob.device_id,
            "ephemeral_pubkey": "ek",
            "sender_prekey_pub": "spk",
            "otpk_used": "otpk",
            "ciphertext": "c2VjcmV0",
            "state": "initiated",
            "created_at": created_at,
        })
    };
    assert_eq!(
        rows,
        [
            expected(older, "2025-11-01T14:30:00"),
            expected(newer, "2025-11-02T14:30:00")
        ]
    );
}

#[tokio::test]
async fn devices_are_the_user_s_with_public_keys_and_no_push_token() {
    let scene = Scene::set().await;
    scene
        .run(
            "UPDATE devices SET identity_pubkey = 'ik', prekey_pubkey = 'pk', \
             signed_prekey_pub = 'spk', signed_prekey_sig = 'sig', one_time_prekeys = '[\"a\"]', \
             device_label = 'phone', push_token = 'between-us', created_at = '2025-11-02 14:30' \
             WHERE id = $1",
            scene.bob.device_id,
        )
        .await;
    let second = add_device(&scene.db, scene.bob.id).await;

    let response = scene
        .server
        .get(&format!("/users/{}/devices", scene.bob.id))
        .await;
    assert!(!response.body.contains("between-us"), "{}", response.body);
    let (rows, _) = state(&response);
    assert_eq!(
        rows[0],
        json!({
            "id": scene.bob.device_id,
            "user_id": scene.bob.id,
            "identity_pubkey": "ik",
            "prekey_pubkey": "pk",
            "signed_prekey_pub": "spk",
            "signed_prekey_sig": "sig",
            "one_time_prekeys": ["a"],
            "device_label": "phone",
            "created_at": "2025-11-02T14:30:00",
        })
    );
    assert_eq!((rows.len(), &rows[1]["id"]), (2, &json!(second)));
}

#[tokio::test]
async fn no_rows_are_an_empty_array_with_a_cursor() {
    let server = Server::start().await;
    let nobody = Uuid::new_v4();
    for path in [
        messages_of(nobody),
        format!("/sessions/pending?device_id={nobody}"),
        format!("/users/{nobody}/devices"),
    ] {
        let response = server.get(&path).await;
        assert!(state(&response).0.is_empty());
        assert_eq!(response.body, "[]");
    }
}

#[tokio::test]
async fn a_malformed_id_is_refused() {
    let server = Server::start().await;
    let malformed = "device_id_malformed";
    assert_error(&server.get("/messages/pending/42").await, 400, malformed);
    assert_error(&server.get("/messages/pending/%00").await, 400, malformed);
    assert_error(
        &server.get("/sessions/pending?device_id=").await,
        400,
        malformed,
    );
    assert_error(
        &server.get("/sessions/pending?device_id=';--").await,
        400,
        malformed,
    );
    assert_error(
        &server.get("/sessions/pending").await,
        400,
        "device_id_missing",
    );
    assert_error(
        &server.get("/users/bob/devices").await,
        400,
        "user_id_malformed",
    );
    let twice = format!("/sessions/pending?device_id={0}&device_id={0}", Uuid::nil());
    assert_error(&server.get(&twice).await, 400, "query_malformed");
    assert_error(&server.get("/messages/pending").await, 404, "not_found");
}

#[tokio::test]
async fn a_database_without_the_log_gives_state_without_a_cursor() {
    let scene = Scene::set_on(Database::hushnet().await).await;
    scene.message("m", "0").await;
    scene.handshake(scene.bob.device_id, "initiated", "0").await;
    for path in [
        messages_of(scene.bob.device_id),
        format!("/sessions/pending?device_id={}", scene.bob.device_id),
        format!("/users/{}/devices", scene.bob.id),
    ] {
        let response = scene.server.get(&path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        assert_eq!(response.json().as_array().unwrap().len(), 1, "{path}");
        assert!(!response.headers.contains_key("realtime-cursor"), "{path}");
    }
}

#[tokio::test]
async fn a_missing_database_is_answered_with_503() {
    let server = Server::start().await;
    let url = &server.database().url;
    let name = url[url.find("/t_").unwrap() + 1..]
        .split('?')
        .next()
        .unwrap();
    let mut admin = connect(&cluster().url("postgres")).await;
    execute(&mut admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    let response = server.get(&messages_of(Uuid::new_v4())).await;
    assert_error(&response, 503, "database_unavailable");
    assert_eq!(response.headers["retry-after"], "1");
}

#[tokio::test]
async fn rows_beyond_the_bound_follow_when_the_oldest_are_delivered() {
    let scene = Scene::set().await;
    sqlx::query(
        "INSERT INTO messages (logical_msg_id, to_device_id, header, ciphertext, created_at) \
         SELECT n, $1, '{}', '', now() - n * interval '1 second' FROM generate_series(1, $2) AS n",
    )
    .bind(scene.bob.device_id)
    .bind(i64::from(PENDING_ROWS_MAX) + 2)
    .execute(&scene.db)
    .await
    .unwrap();

    let path = messages_of(scene.bob.device_id);
    let response = scene.server.get(&path).await;
    assert_eq!(response.headers["realtime-more"], "true");
    let (rows, _) = state(&response);
    assert_eq!(rows.len(), PENDING_ROWS_MAX as usize);
    assert_eq!(
        rows[0]["logical_msg_id"],
        (PENDING_ROWS_MAX + 2).to_string()
    );

    let ids: Vec<Uuid> = rows.iter().map(|row| id(&row["id"])).collect();
    sqlx::query("UPDATE messages SET delivered_at = now() WHERE id = ANY($1)")
        .bind(ids)
        .execute(&scene.db)
        .await
        .unwrap();
    let response = scene.server.get(&path).await;
    assert!(!response.headers.contains_key("realtime-more"));
    let (rest, _) = state(&response);
    assert_eq!(
        [&rest[0]["logical_msg_id"], &rest[1]["logical_msg_id"]],
        ["2", "1"]
    );
    assert_eq!(rest.len(), 2);
}

#[tokio::test]
async fn one_row_is_returned_even_beyond_the_bound_on_bytes() {
    let scene = Scene::set().await;
    let fill = "UPDATE messages SET ciphertext = repeat('x', 10 << 20) WHERE to_device_id = $1";
    for age in ["3 hours", "2 hours", "1 hour"] {
        scene.message(age, age).await;
    }
    scene.run(fill, scene.bob.device_id).await;
    let path = messages_of(scene.bob.device_id);
    let response = scene.server.get(&path).await;
    assert_eq!(response.headers["realtime-more"], "true");
    assert_eq!(state(&response).0.len(), 1);

    let longer = "UPDATE messages SET ciphertext = repeat('x', 20 << 20) WHERE to_device_id = $1";
    scene.run(longer, scene.bob.device_id).await;
    let (rows, _) = state(&scene.server.get(&path).await);
    assert_eq!(
        (rows.len(), &rows[0]["logical_msg_id"]),
        (1, &json!("3 hours"))
    );
}
