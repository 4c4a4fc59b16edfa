//! The page at `/console`: its headers and its routes. Its behaviour in a browser is tested in
//! `clients/console`.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::identity::{Key, claims, takes_tokens, token};
use crate::support::{Database, Response, Server, add_user, insert_message, until};
use hushnet_realtime::store::demo;
use hushnet_testkit::roles::OWNER;

async fn with_console() -> Server {
    Server::start_with(|config| config.edge.console = Some(true)).await
}

async fn get_as(server: &Server, path: &str, token: &str) -> Response {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    server.request(&request).await
}

async fn post(server: &Server, body: &str, headers: &str) -> Response {
    let request = format!(
        "POST /console/demo/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    server.request(&request).await
}

/// Milliseconds since 1970.
fn unix_ms() -> f64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() * 1e3
}

const JSON: &str = "Content-Type: application/json\r\n";

fn assert_refused(response: &Response, status: u16, code: &str) {
    assert_eq!(
        (response.status, &response.json()["error"]["code"]),
        (status, &json!(code))
    );
}

#[tokio::test]
async fn the_page_is_served_where_it_is_asked_for_and_loads_nothing_from_elsewhere() {
    let server = Server::start().await;
    assert_refused(&server.get("/console").await, 404, "console_not_served");
    assert_refused(
        &server.get("/console/facts").await,
        404,
        "console_not_served",
    );

    let server = with_console().await;
    for (path, content_type) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/console.js", "text/javascript; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.headers["content-type"], content_type);
        assert!(response.body.len() > 100, "{path}");
        let policy = &response.headers["content-security-policy"];
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    let facts = server.get("/console/facts").await.json();
    assert_eq!(facts["auth"], "none");
    assert_eq!(facts["demo"], Value::Null);
    assert_refused(&post(&server, "{}", JSON).await, 404, "not_found");
}

#[tokio::test]
async fn a_user_sees_the_figures_and_the_times_of_its_own_events() {
    let server = with_console().await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut client = server
        .connect_v1(&format!("/ws?user_id={}", alice.id))
        .await;
    let cursor = client.next_json().await["cursor"].clone();
    // PostgreSQL's clock is this machine's; it rounds to microseconds.
    let before_ms = unix_ms();
    insert_message(&db, None, &bob, &alice).await;
    let mut event = client.next_json().await;
    // Her device was added shortly before she connected.
    while event["type"] == "device" {
        event = client.next_json().await;
    }
    let after_ms = unix_ms();

    assert_refused(&server.get("/console/stats").await, 400, "user_id_missing");
    let path = format!("/console/stats?user_id={}", alice.id);
    let stats = server.get(&path).await.json();
    assert_eq!(stats["connections_open"], 1);
    assert_eq!(stats["users_connected"], 1);
    let now_ms = stats["now_ms"].as_f64().unwrap();
    assert!((after_ms..=unix_ms()).contains(&now_ms), "{stats}");
    until("a percentile of the delivery", async || {
        // A percentile is shown for two seconds only.
        insert_message(&db, None, &bob, &alice).await;
        let stats = server.get(&path).await.json();
        stats["delivery_latency_p99_ms"].as_f64().is_some()
            && stats["events_delivered_total"].as_u64() >= Some(1)
    })
    .await;

    let times = async |user: Uuid, ids: &str| {
        let since = cursor.as_str().unwrap();
        let path = format!("/console/times?user_id={user}&since={since}&ids={ids}");
        server.get(&path).await
    };
    let id = event["id"].to_string();
    let written = times(alice.id, &format!("{id},9007199254740991"))
        .await
        .json();
    let written_ms = written["times_ms"][&id].as_f64().unwrap();
    assert!(
        (before_ms - 1.0..=after_ms + 1.0).contains(&written_ms),
        "{written}"
    );
    assert_eq!(written["times_ms"].as_object().unwrap().len(), 1);
    assert_eq!(times(bob.id, &id).await.json()["times_ms"], json!({}));
    assert_refused(&times(alice.id, "x").await, 400, "query_malformed");
    let many = vec!["1"; 257].join(",");
    assert_refused(&times(alice.id, &many).await, 400, "query_malformed");
}

#[tokio::test]
async fn the_figures_want_the_same_identity_as_the_events() {
    let key = Key::secret();
    let server = Server::start_with(|config| {
        takes_tokens(config, &key);
        config.edge.console = Some(true);
        config.edge.demo = true;
    })
    .await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let good = token(&key, &claims(&alice));
    for path in ["/console/stats", "/console/times?since=x&ids=1"] {
        let response = server.get(path).await;
        assert_refused(&response, 401, "credentials_missing");
        let response = get_as(&server, path, "nonsense").await;
        assert_refused(&response, 401, "token_malformed");
    }
    assert_eq!(get_as(&server, "/console/stats", &good).await.status, 200);
    let others = format!("/console/stats?user_id={}", bob.id);
    assert_refused(&get_as(&server, &others, &good).await, 403, "other_user");
    // With authentication, the page sends no messages as the demo users.
    let facts = server.get("/console/facts").await.json();
    assert_eq!(
        (&facts["auth"], &facts["demo"]),
        (&json!("jwt"), &Value::Null)
    );
    assert_refused(&post(&server, "{}", JSON).await, 404, "not_found");
}

#[tokio::test]
async fn in_run_the_page_sends_real_messages_between_the_demo_users() {
    // `run` serves as the owner of its own database.
    let database = Database::migrated().await.served_by(OWNER);
    let server = Server::start_on(database, |config| {
        config.edge.console = Some(true);
        config.edge.demo = true;
    })
    .await;
    demo::add_users(&server.db().await).await.unwrap();
    let facts = server.get("/console/facts").await.json();
    let names = facts["demo"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|user| &user["username"]).collect();
    assert_eq!(names, [demo::SENDER, demo::RECIPIENT]);
    let bob = facts["demo"][1]["id"].as_str().unwrap();
    let mut client = server.connect(bob.parse().unwrap()).await;

    let message = r#"{"from":"alice","to":"bob","text":"hello"}"#;
    let response = post(&server, message, JSON).await;
    assert_eq!(response.status, 201, "{}", response.body);
    assert_eq!(client.next_json().await["user_id"], bob);

    let elsewhere = format!("{JSON}Origin: https://evil.example\r\n");
    for headers in ["", "Content-Type: text/plain\r\n", &elsewhere] {
        let response = post(&server, message, headers).await;
        assert_refused(&response, 403, "origin_not_allowed");
    }
    let unknown = r#"{"from":"alice","to":"nobody","text":"hello"}"#;
    let response = post(&server, unknown, JSON).await;
    assert_refused(&response, 404, "demo_user_unknown");
    for malformed in ["", "[]", r#"{"from":"alice"}"#, &" ".repeat(5_000)] {
        let response = post(&server, malformed, JSON).await;
        assert_refused(&response, 400, "demo_message_malformed");
    }
    client.send(r#"{"type":"ping"}"#).await;
    assert_eq!(client.next_json().await["type"], "pong", "nothing was sent");
}
