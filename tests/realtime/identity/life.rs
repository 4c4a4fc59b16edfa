//! A proof's life on a connection: how it comes, how it is renewed, and what ends it.

use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::*;
use crate::support::{Client, Database, soon};

/// Connects with what the request carries.
async fn connect(server: &Server, path: &str, headers: &[(&'static str, String)]) -> Client {
    let mut request = format!("ws://{}{path}", server.address())
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(*name, value);
    }
    let (socket, _) = soon("a connection", connect_async(request)).await.unwrap();
    crate::support::client_on(socket)
}

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}"))]
}

fn offered(subprotocol: &str) -> Vec<(&'static str, String)> {
    vec![(
        "sec-websocket-protocol",
        format!("hushnet.v1, {subprotocol}"),
    )]
}

fn expiring(key: &Key, user: &User, in_s: u64) -> String {
    let mut claims = claims(user);
    claims["exp"] = (unix_seconds() + in_s).into();
    token(key, &claims)
}

#[tokio::test]
async fn a_proof_may_come_as_a_browser_can_send_it() {
    let key = Key::secret();
    let server = Server::start_with(|config| {
        takes_tokens(config, &key);
        config.identity.auth = AuthMode::JwtOrDevice;
        config.identity.jwt_in_query = true;
    })
    .await;
    let pool = server.db().await;
    let alice = add_user(&pool).await;
    let device = Device::of(&pool, &alice).await;
    let (now, good) = (unix_seconds(), token(&key, &claims(&alice)));
    for (path, headers) in [
        ("/ws".to_owned(), offered(&format!("hushnet.token.{good}"))),
        ("/ws".to_owned(), offered(&device.subprotocol(now))),
        (format!("/ws?{}", device.query(now - 1)), vec![]),
        (format!("/ws?token={good}"), vec![]),
    ] {
        let mut client = connect(&server, &path, &headers).await;
        if !headers.is_empty() {
            assert_eq!(client.next_json().await["type"], "hello");
        }
        insert_message(&pool, None, &alice, &alice).await;
        assert_eq!(client.next_json().await["user_id"], alice.id.to_string());
    }
}

#[tokio::test]
async fn a_browser_is_told_by_the_close_code_why_it_is_not_let_in() {
    let key = Key::secret();
    let server = Server::start_with(|config| takes_tokens(config, &key)).await;
    let alice = add_user(&server.db().await).await;
    let mut other = claims(&alice);
    other["aud"] = "mail".into();
    let mut past = claims(&alice);
    past["exp"] = (unix_seconds() - 1).into();
    for (token, code) in [
        ("nonsense".to_owned(), 4001),
        (token(&key, &other), 4001),
        (token(&key, &past), 4004),
    ] {
        let headers = offered(&format!("hushnet.token.{token}"));
        let mut client = connect(&server, "/ws", &headers).await;
        assert_eq!(client.close_code().await, code);
    }
    assert!(server.metric("hushnet_connections_opened_total").await < 0.5);
    // A token in the query is not looked at unless the settings say so.
    let url = format!(
        "ws://{}/ws?token={}",
        server.address(),
        token(&key, &claims(&alice))
    );
    let refused = soon("an answer", connect_async(url)).await.unwrap_err();
    assert!(refused.to_string().contains("401"), "{refused}");
}

#[tokio::test]
async fn a_token_that_expires_ends_the_connection_unless_it_is_renewed() {
    let key = Key::secret();
    let server = Server::start_with(|config| takes_tokens(config, &key)).await;
    let pool = server.db().await;
    let (alice, mallory) = (add_user(&pool).await, add_user(&pool).await);
    let short = bearer(&expiring(&key, &alice, 2));
    let mut left = connect(&server, "/ws", &short).await;
    let mut renewed = connect(&server, "/ws", &short).await;

    let ask = |token: &str| json!({ "type": "auth", "token": token }).to_string();
    // What is not good changes nothing.
    for (token, code) in [
        ("nonsense".to_owned(), "token_malformed"),
        (expiring(&key, &mallory, 60), "other_user"),
    ] {
        renewed.send(ask(&token)).await;
        let answer = renewed.next_json().await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code))
        );
    }
    renewed.send(ask(&expiring(&key, &alice, 60))).await;
    let answer = renewed.next_json().await;
    assert_eq!(answer["type"], "authenticated");
    assert!(
        answer["expires_in_ms"].as_u64().unwrap() > 50_000,
        "{answer}"
    );

    assert_eq!(left.close_code().await, 4004);
    insert_message(&pool, None, &alice, &alice).await;
    assert_eq!(renewed.next_json().await["type"], "message");
    let closed = "hushnet_connections_closed_total{reason=\"token_expired\"}";
    server.until_metric(closed, 1.0).await;
}

/// From COMMIT to the close frame, for one device's deletion and for its user's.
#[tokio::test]
async fn a_deleted_device_is_closed_on_commit_and_the_others_are_not() {
    let key = Key::secret();
    for ingest in ["notify", "tail", "adaptive"] {
        let server = Server::start_with(|config| {
            takes_tokens(config, &key);
            config.identity.auth = AuthMode::JwtOrDevice;
            config.ingest = Some(clap::ValueEnum::from_str(ingest, true).unwrap());
        })
        .await;
        let pool = server.db().await;
        let alice = add_user(&pool).await;
        let phone = Device::of(&pool, &alice).await;
        let laptop = Device::of(&pool, &alice).await;
        let now = unix_seconds();
        let mut on_phone = connect(&server, "/ws", &offered(&phone.subprotocol(now))).await;
        let mut on_laptop = connect(&server, "/ws", &offered(&laptop.subprotocol(now))).await;
        let anywhere = bearer(&token(&key, &claims(&alice)));
        let mut anywhere = connect(&server, "/ws", &anywhere).await;
        for client in [&mut on_phone, &mut on_laptop] {
            assert_eq!(client.next_json().await["type"], "hello");
        }

        let begun = tokio::time::Instant::now();
        delete(&pool, "devices", phone.id).await;
        assert_eq!(on_phone.close_code().await, 4003, "{ingest}");
        println!(
            "{ingest}: closed {:?} after the commit began",
            begun.elapsed()
        );
        insert_message(
            &pool,
            None,
            &alice,
            &User {
                device_id: laptop.id,
                ..alice
            },
        )
        .await;
        for client in [&mut on_laptop, &mut anywhere] {
            until_message(client).await;
        }

        delete(&pool, "users", alice.id).await;
        for client in [&mut on_laptop, &mut anywhere] {
            assert_eq!(client.close_code().await, 4003, "{ingest}");
        }
    }
}

/// Reads what comes up to a message: devices that have changed, and how far the client is.
async fn until_message(client: &mut Client) {
    loop {
        match client.next_json().await["type"].as_str() {
            Some("message") => return,
            Some("device" | "cursor") => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

async fn delete(pool: &sqlx::PgPool, table: &'static str, id: uuid::Uuid) {
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "DELETE FROM {table} WHERE id = $1"
    )))
    .bind(id)
    .execute(pool)
    .await
    .unwrap();
}

/// In the log stands a revocation of long ago; the device has come back since, under the same id.
#[tokio::test]
async fn a_revocation_of_the_past_does_not_close_who_comes_back() {
    let key = Key::secret();
    for recent_bytes_max in [65_536, 67_108_864] {
        let server = Server::start_with(|config| {
            takes_tokens(config, &key);
            config.recent_bytes_max = recent_bytes_max;
            config.barrier_interval_ms = 100;
        })
        .await;
        let pool = server.db().await;
        let (alice, bob) = (add_user(&pool).await, add_user(&pool).await);
        let mut claims = claims(&alice);
        claims["device_id"] = alice.device_id.to_string().into();
        let proof = bearer(&token(&key, &claims));
        let mut v1 = offered("other");
        v1.extend(proof);
        let mut client = connect(&server, "/ws", &v1).await;
        let cursor = client.next_json().await["cursor"]
            .as_str()
            .unwrap()
            .to_owned();
        drop(client);

        let row = "WITH gone AS (DELETE FROM devices WHERE id = $1 RETURNING *) SELECT * FROM gone";
        let mut transaction = pool.begin().await.unwrap();
        sqlx::query(row)
            .bind(alice.device_id)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        sqlx::query(
            "INSERT INTO devices (id, user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, \
             signed_prekey_sig, one_time_prekeys) VALUES ($1, $2, 'back', '', '', '', '[]')",
        )
        .bind(alice.device_id)
        .bind(alice.id)
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        // With little memory, the past is in the log alone.
        for _ in 0..300 {
            insert_message(&pool, None, &alice, &bob).await;
        }
        let mut client = connect(&server, &format!("/ws?since={cursor}"), &v1).await;
        let hello = client.next_json().await;
        assert_eq!(hello["type"], "hello");
        for _ in 0..hello["replayed"].as_u64().unwrap() {
            assert_eq!(client.next_json().await["type"], "device");
        }
        insert_message(&pool, None, &bob, &alice).await;
        until_message(&mut client).await;
    }
}

/// HushNet's own triggers do not tell of a deletion: the device is looked up now and then.
#[tokio::test]
async fn a_deleted_device_is_closed_also_without_the_log() {
    let database = Database::hushnet().await;
    let server = Server::start_on(database, |config| {
        config.identity.auth = AuthMode::Device;
        config.ping_interval_ms = 300;
    })
    .await;
    let pool = server.db().await;
    let alice = add_user(&pool).await;
    let phone = Device::of(&pool, &alice).await;
    let laptop = Device::of(&pool, &alice).await;
    let now = unix_seconds();
    let mut on_phone = connect(&server, &format!("/ws?{}", phone.query(now)), &[]).await;
    let mut on_laptop = connect(&server, &format!("/ws?{}", laptop.query(now)), &[]).await;
    delete(&pool, "devices", phone.id).await;
    assert_eq!(on_phone.close_code().await, 4003);
    on_laptop.send(r#"{"type":"ping"}"#).await;
    assert_eq!(on_laptop.next_json().await["type"], "pong");
}

/// What a client that floods gets, and that the others notice nothing.
#[tokio::test]
async fn a_client_that_says_too_much_is_closed() {
    let server = Server::start_with(|config| config.limits.client_frames_per_second = 10).await;
    let pool = server.db().await;
    let alice = add_user(&pool).await;
    let mut loud = server.connect(alice.id).await;
    let mut quiet = server.connect(alice.id).await;
    for _ in 0..40 {
        if futures_util::SinkExt::send(&mut loud.socket, r#"{"type":"ping"}"#.into())
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(loud.close_code().await, 4029);
    for _ in 0..10 {
        quiet.send(r#"{"type":"ping"}"#).await;
        quiet.until_type("pong").await;
    }
}
