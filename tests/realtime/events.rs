//! Each change reaches the users that it concerns, with the specification's fields, and no other user.

use hushnet_realtime::config::{Config, Ingest};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    Client, Database, Server, User, add_chat, add_device, add_user, insert_message, notify,
};

/// Two users with a chat, a user without one, and the service.
struct Scene {
    server: Server,
    db: sqlx::PgPool,
    alice: User,
    bob: User,
    eve: User,
    chat: Uuid,
}

impl Scene {
    async fn set() -> Self {
        Self::set_on(Database::migrated().await).await
    }

    async fn set_on(database: Database) -> Self {
        Self::set_with(database, |_| {}).await
    }

    async fn set_with(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let db = database.pool().await;
        let (alice, bob, eve) = (
            add_user(&db).await,
            add_user(&db).await,
            add_user(&db).await,
        );
        let chat = add_chat(&db, &alice, &bob).await;
        let server = Server::start_on(database, change).await;
        Self {
            server,
            db,
            alice,
            bob,
            eve,
            chat,
        }
    }

    /// Commits an event for the user, as a trigger does, and checks that it is the client's next frame. The
    /// marker takes the way of every other event, through the log. So an event that was committed before
    /// and was for this user would come first.
    async fn assert_nothing_came(&self, user: &User, client: &mut Client) {
        let mark = Uuid::new_v4();
        sqlx::query(
            "SELECT realtime.emit('devices_channel', $1, 'device', \
             json_build_object('type', 'device', 'user_id', $1, 'mark', $2))",
        )
        .bind(user.id)
        .bind(mark)
        .execute(&mut self.server.database().connect().await)
        .await
        .unwrap();
        let next = client.next_json().await;
        assert_eq!(next["mark"], json!(mark), "it got {next}");
        assert!(
            next["id"].is_i64(),
            "the marker is not from the log: {next}"
        );
    }
}

/// The event without its id, which is checked to be a positive number.
fn without_id(mut event: Value) -> Value {
    let id = event
        .as_object_mut()
        .unwrap()
        .remove("id")
        .expect("an event has an id");
    assert!(id.as_i64().is_some_and(|id| id > 0), "{id}");
    event
}

#[tokio::test]
async fn a_message_reaches_its_recipient_and_no_other_user() {
    for ingest in [Ingest::Notify, Ingest::Tail, Ingest::Adaptive] {
        assert_a_message_reaches_its_recipient_alone(ingest).await;
    }
}

async fn assert_a_message_reaches_its_recipient_alone(ingest: Ingest) {
    let database = Database::migrated().await;
    let scene = Scene::set_with(database, |config| config.ingest = Some(ingest)).await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let mut alice = scene.server.connect(scene.alice.id).await;
    let mut eve = scene.server.connect(scene.eve.id).await;

    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;

    assert_eq!(
        without_id(bob.next_json().await),
        json!({ "type": "message", "chat_id": scene.chat, "user_id": scene.bob.id })
    );
    scene.assert_nothing_came(&scene.alice, &mut alice).await;
    scene.assert_nothing_came(&scene.eve, &mut eve).await;
    scene.assert_nothing_came(&scene.bob, &mut bob).await;
    assert!(
        scene
            .server
            .metric("hushnet_events_delivered_total{kind=\"message\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn a_session_reaches_both_users_once() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let mut alice = scene.server.connect(scene.alice.id).await;
    let mut eve = scene.server.connect(scene.eve.id).await;

    let insert = "INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ($1, $2)";
    sqlx::query(insert)
        .bind(scene.alice.device_id)
        .bind(scene.bob.device_id)
        .execute(&scene.db)
        .await
        .unwrap();

    for (user, client) in [(&scene.alice, &mut alice), (&scene.bob, &mut bob)] {
        assert_eq!(
            without_id(client.next_json().await),
            json!({
                "type": "session",
                "user_id": user.id,
                "sender_device_id": scene.alice.device_id,
                "receiver_device_id": scene.bob.device_id,
            })
        );
        scene.assert_nothing_came(user, client).await;
    }
    scene.assert_nothing_came(&scene.eve, &mut eve).await;
}

#[tokio::test]
async fn a_session_between_two_devices_of_one_user_is_one_event() {
    let scene = Scene::set().await;
    let second = add_device(&scene.db, scene.alice.id).await;
    let mut alice = scene.server.connect(scene.alice.id).await;
    sqlx::query("INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ($1, $2)")
        .bind(scene.alice.device_id)
        .bind(second)
        .execute(&scene.db)
        .await
        .unwrap();
    // The second device may be routed only now.
    while alice.next_json().await["type"] != "session" {}
    scene.assert_nothing_came(&scene.alice, &mut alice).await;
}

#[tokio::test]
async fn a_device_s_user_gets_its_insert_update_and_delete() {
    let scene = Scene::set().await;
    let mut alice = scene.server.connect(scene.alice.id).await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let expected = json!({ "type": "device", "user_id": scene.alice.id });

    let device = add_device(&scene.db, scene.alice.id).await;
    assert_eq!(without_id(alice.next_json().await), expected);
    for change in [
        "UPDATE devices SET prekey_pubkey = 'new' WHERE id = $1",
        "UPDATE devices SET one_time_prekeys = '[1]', last_seen = now() WHERE id = $1",
        "DELETE FROM devices WHERE id = $1",
    ] {
        sqlx::query(change)
            .bind(device)
            .execute(&scene.db)
            .await
            .unwrap();
        assert_eq!(without_id(alice.next_json().await), expected, "{change}");
    }
    scene.assert_nothing_came(&scene.bob, &mut bob).await;
}

#[tokio::test]
async fn a_device_whose_last_seen_alone_changed_makes_no_event() {
    let scene = Scene::set().await;
    let mut alice = scene.server.connect(scene.alice.id).await;
    for nothing in [
        "UPDATE devices SET last_seen = now() + interval '1 hour' WHERE id = $1",
        "UPDATE devices SET device_label = device_label WHERE id = $1",
    ] {
        sqlx::query(nothing)
            .bind(scene.alice.device_id)
            .execute(&scene.db)
            .await
            .unwrap();
        scene.assert_nothing_came(&scene.alice, &mut alice).await;
    }
}

#[tokio::test]
async fn a_device_that_moves_to_another_user_is_an_event_for_both() {
    let scene = Scene::set().await;
    let mut alice = scene.server.connect(scene.alice.id).await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    sqlx::query("UPDATE devices SET user_id = $2 WHERE id = $1")
        .bind(scene.alice.device_id)
        .bind(scene.bob.id)
        .execute(&scene.db)
        .await
        .unwrap();
    assert_eq!(alice.next_json().await["user_id"], json!(scene.alice.id));
    assert_eq!(bob.next_json().await["user_id"], json!(scene.bob.id));
}

#[tokio::test]
async fn every_device_of_a_user_gets_the_event() {
    let scene = Scene::set().await;
    let mut phone = scene.server.connect(scene.bob.id).await;
    let mut laptop = scene.server.connect(scene.bob.id).await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;
    let on_phone = phone.next_text().await;
    assert_eq!(on_phone, laptop.next_text().await);
    assert!(on_phone.contains(&scene.chat.to_string()));
    assert!((scene.server.metric("hushnet_users_connected").await - 1.0).abs() < f64::EPSILON);
    assert!((scene.server.metric("hushnet_connections_open").await - 2.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn ten_equal_messages_of_one_transaction_are_ten_events() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let mut transaction = scene.db.begin().await.unwrap();
    for _ in 0..10 {
        insert_message(
            &mut *transaction,
            Some(scene.chat),
            &scene.alice,
            &scene.bob,
        )
        .await;
    }
    transaction.commit().await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(bob.next_json().await["id"].as_i64().unwrap());
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    scene.assert_nothing_came(&scene.bob, &mut bob).await;
}

#[tokio::test]
async fn an_event_that_is_rolled_back_is_not_sent() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let mut transaction = scene.db.begin().await.unwrap();
    insert_message(
        &mut *transaction,
        Some(scene.chat),
        &scene.alice,
        &scene.bob,
    )
    .await;
    transaction.rollback().await.unwrap();
    scene.assert_nothing_came(&scene.bob, &mut bob).await;
    let logged: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM realtime.events WHERE user_id = $1 AND kind = 'message'",
    )
    .bind(scene.bob.id)
    .fetch_one(&mut scene.server.database().connect().await)
    .await
    .unwrap();
    assert_eq!(logged, 0);
}

#[tokio::test]
async fn the_log_has_the_notified_text_byte_for_byte() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;
    let sent = bob.next_text().await;
    let id = serde_json::from_str::<Value>(&sent).unwrap()["id"]
        .as_i64()
        .unwrap();
    // What the service alone reads is in the log only.
    let payload = "SELECT replace(payload, ', \"asynchronous\" : true', ''), kind, user_id
                   FROM realtime.events WHERE id = $1";
    let (logged, kind, user): (String, String, Uuid) = sqlx::query_as(payload)
        .bind(id)
        .fetch_one(&mut scene.server.database().connect().await)
        .await
        .unwrap();
    assert_eq!(
        (logged, kind.as_str(), user),
        (sent, "message", scene.bob.id)
    );
}

#[tokio::test]
async fn a_bad_notification_is_counted_and_does_not_stop_the_next_good_one() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let no_user = json!({ "type": "message", "chat_id": scene.chat }).to_string();
    let unknown = json!({ "type": "goaway", "user_id": scene.bob.id }).to_string();
    for bad in ["not json", "", &no_user, &unknown, "{\"type\":"] {
        notify(&scene.db, "messages_channel", bad).await;
    }
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;
    assert_eq!(bob.next_json().await["type"], "message");
    let malformed = "hushnet_notifications_malformed_total{channel=\"messages_channel\"}";
    assert!((scene.server.metric(malformed).await - 5.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn an_event_for_a_user_who_is_not_connected_is_counted() {
    let scene = Scene::set().await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;
    scene
        .server
        .until_metric("hushnet_events_absent_total{kind=\"message\"}", 1.0)
        .await;
    assert!(
        scene
            .server
            .metric("hushnet_events_received_total{kind=\"message\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn hushnet_s_released_client_gets_its_envelope() {
    let scene = Scene::set().await;
    let mut bob = scene
        .server
        .connect_to(&format!("/ws/{}", scene.bob.id))
        .await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;
    let mut event = bob.next_json().await;
    event["payload"] = without_id(event["payload"].take());
    assert_eq!(
        event,
        json!({
            "event_type": "message",
            "payload": { "type": "message", "chat_id": scene.chat, "user_id": scene.bob.id },
        })
    );
}

#[tokio::test]
async fn a_database_with_only_hushnet_s_own_triggers_is_served_live() {
    let scene = Scene::set_on(Database::hushnet().await).await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    insert_message(&scene.db, Some(scene.chat), &scene.alice, &scene.bob).await;
    assert_eq!(
        bob.next_json().await,
        json!({ "type": "message", "chat_id": scene.chat, "user_id": scene.bob.id })
    );
    sqlx::query("INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ($1, $2)")
        .bind(scene.alice.device_id)
        .bind(scene.bob.device_id)
        .execute(&scene.db)
        .await
        .unwrap();
    assert_eq!(bob.next_json().await["type"], "session");
    add_device(&scene.db, scene.bob.id).await;
    assert_eq!(
        bob.next_json().await,
        json!({ "type": "device", "user_id": scene.bob.id })
    );
}

#[tokio::test]
async fn the_application_s_role_needs_no_right_on_our_schema() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let mut application = scene.server.database().admin().await;
    let role = format!("t_app_{}", Uuid::new_v4().simple());
    crate::support::execute(
        &mut application,
        &format!(
            "CREATE ROLE {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; SET ROLE {role};
             SET search_path = pg_temp, public;"
        ),
    )
    .await;
    insert_message(&mut application, Some(scene.chat), &scene.alice, &scene.bob).await;
    assert_eq!(bob.next_json().await["type"], "message");
    sqlx::query("INSERT INTO sessions (sender_device_id, receiver_device_id) VALUES ($1, $2)")
        .bind(scene.alice.device_id)
        .bind(scene.bob.device_id)
        .execute(&mut application)
        .await
        .unwrap();
    assert_eq!(bob.next_json().await["type"], "session");
    sqlx::query("UPDATE devices SET device_label = 'renamed' WHERE id = $1")
        .bind(scene.bob.device_id)
        .execute(&mut application)
        .await
        .unwrap();
    assert_eq!(bob.next_json().await["type"], "device");
    let forged =
        sqlx::query("INSERT INTO realtime.events (user_id, kind, payload) VALUES ($1, '', '')")
            .bind(scene.bob.id)
            .execute(&mut application)
            .await;
    assert!(
        forged
            .unwrap_err()
            .to_string()
            .contains("permission denied")
    );
    let clean = format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role};");
    crate::support::execute(&mut application, &clean).await;
}

/// A schema that comes before PostgreSQL's own has what the triggers use, under the same names, and says whether any of
/// it was called.
#[tokio::test]
async fn the_writer_s_search_path_means_nothing() {
    const HOSTILE: &str = "
        CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC;
        CREATE FUNCTION hostile.called() RETURNS bool LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'called with the rights of %', current_user; END $$;
        CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT hostile.called()::int::bigint';
        CREATE FUNCTION hostile.nextval(text) RETURNS bigint LANGUAGE sql AS 'SELECT hostile.called()::int::bigint';
        CREATE FUNCTION hostile.to_json(uuid) RETURNS json LANGUAGE sql AS 'SELECT hostile.called()::text::json';
        CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT hostile.called()::text';
        CREATE FUNCTION hostile.equal(text, text) RETURNS bool LANGUAGE sql AS 'SELECT hostile.called()';
        CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal);
        CREATE DOMAIN hostile.text AS pg_catalog.text CHECK (hostile.called());
        CREATE DOMAIN hostile.smallint AS pg_catalog.int2 CHECK (hostile.called());
        CREATE DOMAIN hostile.int2 AS pg_catalog.int2 CHECK (hostile.called());
        CREATE TABLE hostile.inserted (chat_id uuid, to_user_id uuid);
        CREATE TEMPORARY TABLE inserted (chat_id uuid, to_user_id uuid);
        SET search_path = hostile, pg_temp, pg_catalog, public;";
    for ingest in ["notify", "tail", "adaptive"] {
        let scene = Scene::set().await;
        let mut writer = scene.server.database().admin().await;
        let way = format!("SELECT realtime.set_ingest('{ingest}')");
        crate::support::execute(&mut writer, &way).await;
        crate::support::execute(&mut writer, HOSTILE).await;
        let mut bob = scene.server.connect(scene.bob.id).await;
        insert_message(&mut writer, Some(scene.chat), &scene.alice, &scene.bob).await;
        assert_eq!(bob.next_json().await["type"], "message", "{ingest}");
    }
}

/// The row says that it is an hour old when its notification is sent. No other time gives that age.
#[tokio::test]
async fn the_age_of_a_delivery_is_measured_from_its_row() {
    let scene = Scene::set().await;
    let mut bob = scene.server.connect(scene.bob.id).await;
    let owner = scene.server.database().owner_pool().await;
    let mut transaction = owner.begin().await.unwrap();
    insert_message(
        &mut *transaction,
        Some(scene.chat),
        &scene.alice,
        &scene.bob,
    )
    .await;
    let aged =
        "UPDATE realtime.events SET created_at = created_at - interval '1 hour' WHERE user_id = $1";
    sqlx::query(aged)
        .bind(scene.bob.id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    bob.next_json().await;
    scene
        .server
        .until_metric("hushnet_delivery_latency_seconds_count", 1.0)
        .await;
    let sum = scene
        .server
        .metric("hushnet_delivery_latency_seconds_sum")
        .await;
    assert!(sum >= 3_600.0, "{sum} s");
}
