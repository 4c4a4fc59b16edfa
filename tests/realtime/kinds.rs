//! Kinds are data: an event of any kind is handed on, and clients may choose among kinds.

use hushnet_realtime::config::Ingest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Client, Database, Server, User, add_chat, add_user, execute, insert_message, notify,
};

/// Writes an event of this kind into the log, as a source's trigger does.
async fn emit(database: &Database, kind: &str, user: Uuid, mark: u32) {
    sqlx::query(
        "SELECT realtime.emit('realtime_events', $1, $2, json_build_object('type', $2, 'user_id', $1, 'mark', $3::int))",
    )
    .bind(user)
    .bind(kind)
    .bind(i64::from(mark))
    .execute(&mut database.connect().await)
    .await
    .unwrap();
}

fn marked(kind: &str, user: Uuid, mark: u32) -> String {
    json!({ "type": kind, "user_id": user, "mark": mark }).to_string()
}

/// The next event that has a mark, as its kind and its mark.
async fn next_of(client: &mut Client) -> (String, Value) {
    loop {
        let mut event = client.next_json().await;
        if event.get("event_type").is_some() {
            event = event["payload"].take();
        }
        if event["mark"].is_u64() {
            let kind = event["type"].as_str().unwrap();
            return (kind.to_owned(), event["mark"].clone());
        }
    }
}

async fn assert_next(client: &mut Client, kind: &str, mark: u32) {
    assert_eq!(next_of(client).await, (kind.to_owned(), json!(mark)));
}

#[tokio::test]
async fn without_a_log_any_channel_is_served_and_an_unknown_kind_handed_on_as_it_is() {
    let database = Database::hushnet().await;
    let server = Server::start_on(database, |config| {
        config.channels = "orders, Заказы".parse().unwrap();
    })
    .await;
    let db = server.db().await;
    let user = add_user(&db).await;
    let mut plain = server.connect(user.id).await;
    let mut released = server.connect_to(&format!("/ws/{}", user.id)).await;
    let mut chosen = server
        .connect_to(&format!("/ws?user_id={}&kinds=order", user.id))
        .await;
    for (channel, kind, mark) in [
        ("pending_sessions_channel", "pending_session_v2", 1),
        ("orders", "order", 2),
        ("Заказы", "заказ", 3),
        ("orders", "order", 4),
    ] {
        notify(&db, channel, &marked(kind, user.id, mark)).await;
        for client in [&mut plain, &mut released] {
            assert_next(client, kind, mark).await;
        }
    }
    assert_next(&mut chosen, "order", 2).await;
    assert_next(&mut chosen, "order", 4).await;
    let malformed = "hushnet_notifications_malformed_total{channel=\"orders\"}";
    assert!(server.metric(malformed).await < 1.0);
    // It would be taken for a frame of the protocol.
    notify(&db, "orders", &marked("reset", user.id, 5)).await;
    server.until_metric(malformed, 1.0).await;
    assert!(
        server
            .metric("hushnet_events_received_total{kind=\"other\"}")
            .await
            >= 4.0
    );
}

#[tokio::test]
async fn beside_a_log_an_unknown_kind_is_handed_on_where_notifications_are_trusted() {
    for ingest in [Ingest::Notify, Ingest::Tail] {
        let server = Server::start_with(|config| {
            config.ingest = Some(ingest);
            config.channels = "orders".parse().unwrap();
        })
        .await;
        let db = server.db().await;
        let user = add_user(&db).await;
        let path = format!("/ws?user_id={}", user.id);
        let mut client = server.connect_v1(&path).await;
        let mut plain = server.connect_to(&path).await;
        client.until_type("hello").await;
        notify(&db, "orders", &marked("order", user.id, 1)).await;
        notify(&db, "devices_channel", &marked("device", user.id, 2)).await;
        emit(server.database(), "device", user.id, 3).await;
        if ingest == Ingest::Notify {
            assert_next(&mut client, "order", 1).await;
        }
        assert_next(&mut client, "device", 3).await;
        assert_next(&mut plain, "device", 3).await;
        let dropped = |channel: &str| {
            format!("hushnet_notifications_without_id_total{{channel=\"{channel}\"}}")
        };
        server.until_metric(&dropped("devices_channel"), 1.0).await;
        if ingest == Ingest::Tail {
            server.until_metric(&dropped("orders"), 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_client_is_sent_the_kinds_that_it_asks_for_live_and_after_it_was_away() {
    for recent_bytes_max in [1 << 27, 1 << 16] {
        let from_memory = recent_bytes_max > 1 << 16;
        let server = Server::start_with(|config| {
            config.recent_bytes_max = recent_bytes_max;
            config.barrier_interval_ms = 50;
        })
        .await;
        let user = add_user(&server.db().await).await;
        let path = format!("/ws?user_id={}&kinds=order,invoice", user.id);
        let mut client = server.connect_v1(&path).await;
        let hello = client.next_json().await;
        let since = hello["cursor"].as_str().unwrap().to_owned();
        let kinds = ["message", "order", "session", "invoice", "order", "device"];
        for (kind, mark) in kinds.into_iter().zip(0..) {
            emit(server.database(), kind, user.id, mark).await;
        }
        for (kind, mark) in [("order", 1), ("invoice", 3), ("order", 4)] {
            assert_next(&mut client, kind, mark).await;
        }
        if !from_memory {
            // The buffer forgets.
            let filler = format!(
                "SELECT realtime.emit('realtime_events', '{}', 'order', json_build_object(
                     'type', 'order', 'user_id', '{0}', 'mark', n)) FROM generate_series(1, 2000) AS n",
                Uuid::nil()
            );
            execute(&mut server.database().connect().await, &filler).await;
            emit(server.database(), "order", user.id, 5).await;
            assert_next(&mut client, "order", 5).await;
        }

        let mut back = server.connect_v1(&format!("{path}&since={since}")).await;
        let hello = back.next_json().await;
        assert_eq!(hello["resumed"], true, "{hello}");
        let mut missed = vec![("order", 1), ("invoice", 3), ("order", 4)];
        missed.extend((!from_memory).then_some(("order", 5)));
        assert_eq!(hello["replayed"], missed.len(), "{hello}");
        for (kind, mark) in missed {
            assert_next(&mut back, kind, mark).await;
        }
        let source = if from_memory { "memory" } else { "log" };
        let replays = format!("hushnet_replays_total{{cause=\"resume\",source=\"{source}\"}}");
        assert!(server.metric(&replays).await >= 1.0, "not from {source}");
    }
}

#[tokio::test]
async fn a_client_of_the_specification_is_sent_hushnet_s_kinds_unless_it_asks_for_others() {
    let server = Server::start().await;
    let user = add_user(&server.db().await).await;
    let mut plain = server.connect(user.id).await;
    let mut released = server.connect_to(&format!("/ws/{}", user.id)).await;
    let all = format!("/ws?user_id={}&kinds=*", user.id);
    let mut all = server.connect_to(&all).await;
    let orders = format!("/ws/{}?kinds=order", user.id);
    let mut orders = server.connect_to(&orders).await;
    for (kind, mark) in [
        ("order", 1),
        ("pending_session", 2),
        ("order", 3),
        ("device", 4),
    ] {
        emit(server.database(), kind, user.id, mark).await;
        assert_next(&mut all, kind, mark).await;
    }
    for client in [&mut plain, &mut released] {
        assert_next(client, "pending_session", 2).await;
        assert_next(client, "device", 4).await;
    }
    assert_next(&mut orders, "order", 1).await;
    assert_next(&mut orders, "order", 3).await;
}

#[tokio::test]
async fn kinds_that_cannot_be_are_refused() {
    let server = Server::start().await;
    let user = add_user(&server.db().await).await;
    let long = "x".repeat(33);
    let many = "kind,".repeat(300);
    for kinds in ["", "message,", "hello", "message,cursor", &long, &many] {
        for path in [
            format!("/ws?user_id={}&kinds={kinds}", user.id),
            format!("/ws/{}?kinds={kinds}", user.id),
        ] {
            let answer = server.get(&path).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
            assert_eq!(answer.json()["error"]["code"], "kinds_malformed");
        }
    }
}

/// Makes one event of each of HushNet's kinds for bob, and returns what each has beside its kind and its user.
async fn cause_each_kind(server: &Server, alice: &User, bob: &User) -> [(&'static str, Value); 4] {
    let db = server.db().await;
    let chat = add_chat(&db, alice, bob).await;
    insert_message(&db, Some(chat), alice, bob).await;
    sqlx::query("INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ($1, $2)")
        .bind(alice.device_id)
        .bind(bob.device_id)
        .execute(&db)
        .await
        .unwrap();
    sqlx::query("UPDATE devices SET device_label = 'renamed' WHERE id = $1")
        .bind(bob.device_id)
        .execute(&db)
        .await
        .unwrap();
    let (pending, created_at): (Uuid, String) = sqlx::query_as(
        "INSERT INTO pending_sessions (sender_device_id, recipient_device_id, ephemeral_pubkey, sender_prekey_pub,
                                       otpk_used, ciphertext)
         VALUES ($1, $2, 'e', 's', 'o', 'c') RETURNING id, to_json(created_at) #>> '{}'",
    )
    .bind(alice.device_id)
    .bind(bob.device_id)
    .fetch_one(&db)
    .await
    .unwrap();
    let (from, to) = (alice.device_id, bob.device_id);
    [
        ("message", json!({ "chat_id": chat })),
        (
            "session",
            json!({ "sender_device_id": from, "receiver_device_id": to }),
        ),
        ("device", json!({})),
        (
            "pending_session",
            json!({ "sender_device_id": from, "recipient_device_id": to,
                    "pending_session_id": pending, "created_at": created_at }),
        ),
    ]
}

#[tokio::test]
async fn each_of_hushnet_s_kinds_comes_in_both_forms_from_its_own_triggers_and_from_the_log_s() {
    for has_log in [false, true] {
        let database = if has_log {
            Database::migrated().await
        } else {
            Database::hushnet().await
        };
        // HushNet's channels are listened to whichever are named.
        let server = Server::start_on(database, |config| {
            config.channels = "orders".parse().unwrap();
        })
        .await;
        let db = server.db().await;
        let (alice, bob) = (add_user(&db).await, add_user(&db).await);
        let mut plain = server.connect(bob.id).await;
        let mut released = server.connect_to(&format!("/ws/{}", bob.id)).await;
        for (kind, mut wanted) in cause_each_kind(&server, &alice, &bob).await {
            wanted["type"] = json!(kind);
            wanted["user_id"] = json!(bob.id);
            let mut event = plain.next_json().await;
            while kind != "device" && event["type"] == "device" {
                // That of the user's own device.
                event = plain.next_json().await;
            }
            let mut envelope = released.next_json().await;
            while kind != "device" && envelope["event_type"] == "device" {
                envelope = released.next_json().await;
            }
            assert_eq!(envelope, json!({ "event_type": kind, "payload": event }));
            let id = event.as_object_mut().unwrap().remove("id");
            assert_eq!(id.is_some(), has_log, "{kind}");
            assert_eq!(event, wanted);
        }
    }
}
