//! WebSocket clients that others wrote get the events: Python's `websockets` and Node's `ws`.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::edge::Certificate;
use crate::support::{Server, add_chat, add_user, insert_message, soon};

fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs `interpreter script URL 10` while ten messages are inserted and checks what it prints. With TLS,
/// the client is told by the variable `trust` which certificate to believe.
async fn assert_gets_ten(interpreter: PathBuf, script: PathBuf, trust: Option<&str>) {
    let certificate = Certificate::make();
    let server = Server::start_with(|config| {
        if trust.is_some() {
            certificate.serve(config);
        }
    })
    .await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let chat = add_chat(&db, &alice, &bob).await;
    let scheme = if trust.is_some() { "wss" } else { "ws" };
    let mut child = Command::new(&interpreter)
        .arg(script)
        .arg(format!(
            "{scheme}://{}/ws?user_id={}",
            server.address(),
            bob.id
        ))
        .arg("10")
        .envs(trust.map(|variable| (variable, certificate.path())))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; scripts/setup.sh test", interpreter.display())
        });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        soon("a line", lines.next_line())
            .await
            .unwrap()
            .expect("it ended early")
    };
    assert_eq!(next().await, "connected");
    for _ in 0..10 {
        insert_message(&db, Some(chat), &alice, &bob).await;
        let mut event: Value = serde_json::from_str(&next().await).unwrap();
        assert!(event.as_object_mut().unwrap().remove("id").is_some());
        assert_eq!(
            event,
            json!({ "type": "message", "chat_id": chat, "user_id": bob.id })
        );
    }
    assert!(soon("its end", child.wait()).await.unwrap().success());
    // Its metrics are behind TLS too.
    if trust.is_none() {
        let closed = "hushnet_connections_closed_total{reason=\"client\"}";
        server.until_metric(closed, 1.0).await;
    }
}

async fn assert_python_gets_ten(trust: Option<&str>) {
    let python = project(".hushnet/venv/bin/python");
    assert_gets_ten(python, project("tests/clients/listen.py"), trust).await;
}

async fn assert_node_gets_ten(trust: Option<&str>) {
    let script = project("tests/clients/listen.mjs");
    assert_gets_ten(PathBuf::from("node"), script, trust).await;
}

#[tokio::test]
async fn python_s_websockets() {
    assert_python_gets_ten(None).await;
}

#[tokio::test]
async fn node_s_ws() {
    assert_node_gets_ten(None).await;
}

#[tokio::test]
async fn python_s_websockets_over_tls() {
    assert_python_gets_ten(Some("SSL_CERT_FILE")).await;
}

#[tokio::test]
async fn node_s_ws_over_tls() {
    assert_node_gets_ten(Some("NODE_EXTRA_CA_CERTS")).await;
}
