//! WebSocket clients that others wrote get the events: Python's `websockets` and Node's `ws`.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{Server, add_chat, add_user, insert_message, soon};

fn project(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs `interpreter script URL 10` while ten messages are inserted and checks what it prints.
async fn assert_gets_ten(interpreter: PathBuf, script: PathBuf) {
    let server = Server::start().await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let chat = add_chat(&db, &alice, &bob).await;
    let mut child = Command::new(&interpreter)
        .arg(script)
        .arg(format!("ws://{}/ws?user_id={}", server.address(), bob.id))
        .arg("10")
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
    server
        .until_metric("hushnet_connections_closed_total{reason=\"client\"}", 1.0)
        .await;
}

#[tokio::test]
async fn python_s_websockets() {
    assert_gets_ten(
        project(".hushnet/venv/bin/python"),
        project("tests/clients/listen.py"),
    )
    .await;
}

#[tokio::test]
async fn node_s_ws() {
    assert_gets_ten(PathBuf::from("node"), project("tests/clients/listen.mjs")).await;
}
