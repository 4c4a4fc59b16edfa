//! A proof on a connection: how it is sent, how it is renewed, and what ends it.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use uuid::Uuid;

use super::logins::sessions_that_wait;
use super::*;
use crate::support::{Client, Database, client_on, soon, until};

fn request(server: &Server, path: &str, headers: &[(&'static str, String)]) -> Request {
    let mut request = format!("ws://{}{path}", server.address())
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(*name, value);
    }
    request
}

/// Connects with these headers.
pub async fn connect(server: &Server, path: &str, headers: &[(&'static str, String)]) -> Client {
    let connecting = connect_async(request(server, path, headers));
    let (socket, _) = soon("a connection", connecting).await.unwrap();
    client_on(socket)
}

pub fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}"))]
}

pub fn offered(subprotocol: &str) -> Vec<(&'static str, String)> {
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
        takes_signatures(config, AuthMode::JwtOrDevice);
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
            let hello = client.next_json().await;
            assert_eq!(hello["type"], "hello");
            // A device's proof does not expire.
            let expires = hello["expires_in_ms"].as_u64();
            let is_token = headers
                .iter()
                .any(|header| format!("{header:?}").contains(".token."));
            assert_eq!(expires.is_some(), is_token, "{hello}");
            assert!(
                expires.is_none_or(|ms| ms > 0 && ms <= 3_600_000),
                "{hello}"
            );
        }
        insert_message(&pool, None, &alice, &alice).await;
        assert_eq!(client.next_json().await["user_id"], alice.id.to_string());
    }
}

/// With an answer that HTTP knows. A balancer hands it on to its client, who comes back to another server.
#[tokio::test]
async fn a_handshake_under_way_when_the_server_stops_is_refused() {
    let key = Key::secret();
    let mut server = Server::start_with(|config| takes_tokens(config, &key)).await;
    let pool = server.db().await;
    let (alice, bob) = (add_user(&pool).await, add_user(&pool).await);
    let of_device = |device: Uuid| {
        let mut claims = claims(&alice);
        claims["device_id"] = device.to_string().into();
        token(&key, &claims)
    };
    let owner = server.database().owner_pool().await;
    let mut lock = owner.begin().await.unwrap();
    let statement = "LOCK TABLE devices IN ACCESS EXCLUSIVE MODE";
    sqlx::query(statement).execute(&mut *lock).await.unwrap();
    // The second would be opened only to be closed.
    let offers = [bearer(&of_device(alice.device_id)), {
        let token = of_device(bob.device_id);
        offered(&format!("hushnet.token.{token}"))
    }];
    let handshakes: Vec<_> = offers
        .map(|headers| tokio::spawn(connect_async(request(&server, "/ws", &headers))))
        .into();
    let admin = server.database().admin_pool().await;
    until("a look-up waits", async || {
        sessions_that_wait(&admin).await > 0
    })
    .await;
    let address = server.address();
    server.begin_stop();
    until("nothing is accepted", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    lock.commit().await.unwrap();
    for handshake in handshakes {
        match soon("an answer", handshake).await.unwrap() {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 503),
            other => panic!("expected 503, got {other:?}"),
        }
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn the_close_code_tells_a_browser_why_its_token_was_refused() {
    let key = Key::secret();
    let server = Server::start_with(|config| takes_tokens(config, &key)).await;
    let alice = add_user(&server.db().await).await;
    let mut other = claims(&alice);
    other["aud"] = "mail".into();
    let mut past = claims(&alice);
    past["exp"] = (unix_seconds() - 1).into();
    for (token, code) in [
        ("malformed".to_owned(), 4001),
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
    // A token that expires before the client has renewed it shows nothing: then one that lives longer.
    for lifetime_s in [2, 10, 60, 240] {
        let short = bearer(&expiring(&key, &alice, lifetime_s));
        let connecting = (
            try_connect(&server, &short).await,
            try_connect(&server, &short).await,
        );
        let (Some(mut left), Some(mut renewed)) = connecting else {
            continue;
        };
        let expires_in_ms = renew(&mut renewed, &key, &alice, &mallory).await;
        assert_eq!(left.close_code().await, 4004);
        let Some(expires_in_ms) = expires_in_ms else {
            continue;
        };
        assert!(expires_in_ms > 1_000 * LIFETIME_S / 2, "{expires_in_ms}");
        insert_message(&pool, None, &alice, &alice).await;
        assert_eq!(renewed.next_json().await["type"], "message");
        let closed = "hushnet_connections_closed_total{reason=\"token_expired\"}";
        server.until_metric(closed, 1.0).await;
        return;
    }
    panic!("every token expired before it was renewed");
}

/// `None` when the token has expired.
async fn try_connect(server: &Server, headers: &[(&'static str, String)]) -> Option<Client> {
    let connecting = connect_async(request(server, "/ws", headers));
    let (socket, _) = soon("an answer", connecting).await.ok()?;
    Some(client_on(socket))
}

/// Sends two tokens that change nothing, and then one that replaces the client's. Returns the lifetime that
/// the server answers, in milliseconds; `None` when the client's token expired first.
async fn renew(client: &mut Client, key: &Key, user: &User, other: &User) -> Option<u64> {
    for (token, code) in [
        ("nonsense".to_owned(), "token_malformed"),
        (expiring(key, other, LIFETIME_S), "other_user"),
    ] {
        let answer = answer_to(client, &token).await?;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code))
        );
    }
    let answer = answer_to(client, &expiring(key, user, LIFETIME_S)).await?;
    assert_eq!(answer["type"], "authenticated");
    answer["expires_in_ms"].as_u64()
}

/// The answer to a token; `None` when the server closes because the token before has expired.
async fn answer_to(client: &mut Client, token: &str) -> Option<serde_json::Value> {
    let ask = json!({ "type": "auth", "token": token }).to_string();
    client.socket.send(ask.into()).await.ok()?;
    match soon("an answer", client.socket.next()).await? {
        Ok(Message::Text(text)) => serde_json::from_str(&text).ok(),
        Ok(Message::Close(close)) => {
            assert_eq!(u16::from(close.unwrap().code), 4004);
            None
        }
        _ => None,
    }
}

/// The deletion of one device, and of its user.
#[tokio::test]
async fn a_deleted_device_is_closed_on_commit_and_the_others_are_not() {
    let key = Key::secret();
    for ingest in ["notify", "tail", "adaptive"] {
        let server = Server::start_with(|config| {
            takes_tokens(config, &key);
            takes_signatures(config, AuthMode::JwtOrDevice);
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

        delete(&pool, "devices", phone.id).await;
        assert_eq!(on_phone.close_code().await, 4003, "{ingest}");
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

/// TRUNCATE fires no trigger for the rows that it deletes.
#[tokio::test]
async fn whoever_was_in_a_table_that_is_emptied_is_closed() {
    let key = Key::secret();
    for table in ["users", "devices"] {
        let server = Server::start_with(|config| {
            takes_tokens(config, &key);
            takes_signatures(config, AuthMode::JwtOrDevice);
        })
        .await;
        let pool = server.db().await;
        let alice = add_user(&pool).await;
        let phone = Device::of(&pool, &alice).await;
        let proof = offered(&phone.subprotocol(unix_seconds()));
        let mut on_phone = connect(&server, "/ws", &proof).await;
        let mut by_token = connect(&server, "/ws", &bearer(&token(&key, &claims(&alice)))).await;
        sqlx::query(sqlx::AssertSqlSafe(format!("TRUNCATE {table} CASCADE")))
            .execute(&mut server.database().connect().await)
            .await
            .unwrap();
        assert_eq!(on_phone.close_code().await, 4003, "{table}");
        if table == "users" {
            assert_eq!(by_token.close_code().await, 4003);
        }
    }
}

/// Reads up to a message. Changes of devices and cursors may come before it.
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

/// The log has an old revocation. The device was inserted again since, with the same id.
#[tokio::test]
async fn a_replayed_revocation_does_not_close_the_device_that_is_back() {
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

/// HushNet's own triggers do not announce a deletion. The server looks the device up with each ping.
#[tokio::test]
async fn a_deleted_device_is_closed_also_without_the_log() {
    let database = Database::hushnet().await;
    let server = Server::start_on(database, |config| {
        takes_signatures(config, AuthMode::Device);
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
    let code = tokio::select! {
        code = on_phone.close_code() => code,
        // Reading answers the pings.
        () = on_laptop.until_type("pong") => panic!("nothing was asked"),
    };
    assert_eq!(code, 4003);
    on_laptop.send(r#"{"type":"ping"}"#).await;
    on_laptop.until_type("pong").await;
}

/// The client that floods is closed; the user's other connection stays.
#[tokio::test]
async fn a_client_that_sends_too_many_frames_is_closed() {
    let server = Server::start_with(|config| config.limits.client_frames_per_second = 1).await;
    let pool = server.db().await;
    let alice = add_user(&pool).await;
    let mut loud = server.connect(alice.id).await;
    let mut quiet = server.connect(alice.id).await;
    // In one write, so that the server reads them at once, however slow the machine is.
    for _ in 0..40 {
        let ping = r#"{"type":"ping"}"#.into();
        loud.socket.feed(ping).await.unwrap();
    }
    loud.socket.flush().await.unwrap();
    assert_eq!(loud.close_code().await, 4029);
    quiet.send(r#"{"type":"ping"}"#).await;
    quiet.until_type("pong").await;
}
