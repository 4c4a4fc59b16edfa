//! Other WebSocket clients get the events: Python's `websockets` and Node's `ws`. The clients of `examples/`,
//! which use no library of ours, resume with their cursor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

use crate::edge::Certificate;
use crate::support::{Server, add_chat, add_user, insert_message, soon, until};

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

/// A relay before the service: a test can cut a connection and see each request's first line.
struct Relay {
    address: SocketAddr,
    /// The first line of each connection's request.
    asked: mpsc::UnboundedReceiver<String>,
    cut: watch::Sender<()>,
}

impl Relay {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::unbounded_channel();
        let (cut, broken) = watch::channel(());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (tell, mut broken) = (tell.clone(), broken.clone());
                broken.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(client, server, tell) => {}
                        _ = broken.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            asked,
            cut,
        }
    }

    async fn next_asked(&mut self) -> String {
        soon("a connection", self.asked.recv()).await.unwrap()
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, tell: mpsc::UnboundedSender<String>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    let mut head = Vec::new();
    while !head.contains(&b'\n') {
        if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let line = String::from_utf8_lossy(&head)
        .lines()
        .next()
        .map(str::to_owned);
    let _ = tell.send(line.unwrap_or_default());
    if server.write_all(&head).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// A client of `examples/`, and the lines that it prints.
struct Example {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    fn start(command: &[String]) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; scripts/setup.sh test", command[0]));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The ids of the next messages. That of the device which was made just before may come too.
    async fn next_ids(&mut self, count: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let line = soon("a line", self.lines.next_line()).await.unwrap();
            let event: Value = serde_json::from_str(&line.expect("it ended early")).unwrap();
            match event["type"].as_str() {
                Some("message") => ids.push(event["id"].as_i64().unwrap()),
                Some("device") => {}
                _ => panic!("unexpected: {event}"),
            }
        }
        ids
    }
}

/// The client gets each event once: while it is connected, after its connection was cut, and after it was
/// started again. `command` takes the relay's address, the user and the file that the client keeps.
async fn assert_comes_back(command: impl Fn(SocketAddr, &str, &str) -> Vec<String>) {
    let server = Server::start().await;
    let db = server.db().await;
    let (alice, bob) = (add_user(&db).await, add_user(&db).await);
    let mut relay = Relay::before(server.address()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kept");
    let file_text = file.to_str().unwrap();
    let command = command(relay.address, &bob.id.to_string(), file_text);
    let insert = async |count| {
        for _ in 0..count {
            insert_message(&db, None, &alice, &bob).await;
        }
    };
    let kept = async || std::fs::read_to_string(&file).unwrap_or_default();

    let mut example = Example::start(&command);
    assert!(!relay.next_asked().await.contains("since="));
    // The cursor of `hello`: no later event is missed.
    until("a cursor is kept", async || {
        let kept = kept().await.replace(['\\', '"', ' '], "");
        kept.contains("cursor:") && !kept.contains("cursor:,")
    })
    .await;
    insert(3).await;
    let mut seen = example.next_ids(3).await;

    relay.cut.send_replace(());
    insert(2).await;
    assert!(relay.next_asked().await.contains("&since="));
    seen.extend(example.next_ids(2).await);

    // A client that is killed before it has kept the id may print the last event again.
    let last = format!("{}]", seen[4]);
    until("the last id is kept", async || kept().await.contains(&last)).await;
    example.child.kill().await.unwrap();
    insert(2).await;
    let mut example = Example::start(&command);
    assert!(relay.next_asked().await.contains("&since="));
    insert(1).await;
    seen.extend(example.next_ids(3).await);

    let logged: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM realtime.events WHERE user_id = $1 AND kind = 'message' ORDER BY id",
    )
    .bind(bob.id)
    .fetch_all(&mut server.database().connect().await)
    .await
    .unwrap();
    // In order too: they were committed one after another.
    assert_eq!(seen, logged);
}

#[tokio::test]
async fn the_python_example_comes_back_with_its_cursor() {
    assert_comes_back(|address, user, file| {
        let script = project("examples/python/listen.py");
        let script = script.to_str().unwrap();
        ["python3", script, &address.to_string(), user, file]
            .map(str::to_owned)
            .to_vec()
    })
    .await;
}

/// With Node's `ws` instead of the browser's WebSocket.
#[tokio::test]
async fn the_browser_example_s_script_comes_back_with_its_cursor() {
    assert_comes_back(|address, user, file| {
        let script = project("tests/clients/browser-example.mjs");
        let script = script.to_str().unwrap();
        ["node", script, &format!("ws://{address}"), user, file]
            .map(str::to_owned)
            .to_vec()
    })
    .await;
}

#[test]
fn the_examples_are_of_forty_lines_at_most() {
    for path in ["examples/python/listen.py", "examples/browser/index.html"] {
        let lines = std::fs::read_to_string(project(path))
            .unwrap()
            .lines()
            .count();
        assert!(lines <= 40, "{path} has {lines}");
    }
}

/// Checked with the parsers of the formats' authors.
#[tokio::test]
async fn the_documents_for_programs_are_valid() {
    let checked = Command::new("node")
        .arg(project("tests/clients/specifications.mjs"))
        .output();
    let checked = soon("the check", checked)
        .await
        .expect("node; scripts/setup.sh test");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}
