//! The limit of open files: clients never take the descriptors that the service needs itself.

use std::net::SocketAddr;
use std::process::Stdio;

use hushnet_testkit::program::command;
use hushnet_testkit::server::Server;
use serde_json::json;
use sqlx::PgConnection;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{
    Client, Database, User, add_user, cluster, connect, connect_client, execute, insert_message,
    soon, until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");
/// The limit of open files.
const LIMIT: u32 = 128;
/// Clients that come, more than there are descriptors.
const CROWD: usize = 300;

/// The program under this limit of open files, on this database.
fn limited(limit: u32, database: &Database, arguments: &[&str]) -> Command {
    let mut command = command("sh");
    command
        .args(["-c", &format!(r#"ulimit -n {limit} && exec "$0" "$@""#)])
        .args([PROGRAM, "serve", "--listen", "127.0.0.1:0"])
        .args(["--database-url", &database.url])
        .args(arguments)
        .stderr(Stdio::piped());
    command
}

/// Connections of which each has asked for a WebSocket, or of which none has sent anything.
async fn crowd(server: SocketAddr, ask: bool) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut stream = TcpStream::connect(server).await.unwrap();
        if ask {
            let request = format!(
                "GET /ws?user_id={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                Uuid::new_v4()
            );
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        crowd.push(stream);
    }
    crowd
}

/// A service with few descriptors, a client of it, and who writes to the client.
struct Scene {
    database: Database,
    server: Server,
    /// Where the metrics are.
    operators: SocketAddr,
    alice: User,
    bob: User,
    client: Client,
}

impl Scene {
    /// With an address of their own for the operators, or with the clients' address for all.
    async fn set(operators: Option<SocketAddr>) -> Self {
        let database = Database::migrated().await;
        let pool = database.pool().await;
        let (alice, bob) = (add_user(&pool).await, add_user(&pool).await);
        pool.close().await;
        // What is not closed for another reason stays open.
        let mut command = limited(LIMIT, &database, &["--request-head-timeout-ms", "600000"]);
        if let Some(operators) = operators {
            command.args(["--metrics-listen", &operators.to_string()]);
        }
        let mut server = Server::start(&mut command).await;
        let mut log = server.program.log.take().unwrap();
        tokio::spawn(async move { while log.next().await.is_some() {} });
        server.until_ready().await;
        let address = server.address();
        let client = connect_client(&format!("ws://{address}/ws?user_id={}", bob.id)).await;
        Self {
            database,
            operators: operators.unwrap_or(address),
            server,
            alice,
            bob,
            client,
        }
    }

    async fn metric(&self, series: &str) -> f64 {
        let response = hushnet_testkit::http::get(self.operators, "/metrics").await;
        response.unwrap().metric(series).unwrap()
    }

    /// Ends every connection to the database, and admits none until [`Scene::restore_database`].
    async fn cut_database(&self) -> PgConnection {
        let mut admin = connect(&cluster().url("postgres")).await;
        let name = self.database_name();
        let refuse = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        execute(&mut admin, &refuse).await;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(name)
            .execute(&mut admin)
            .await
            .unwrap();
        until("the listener is away", async || {
            self.metric("hushnet_listener_connected").await < 1.0
        })
        .await;
        admin
    }

    async fn restore_database(&self, mut admin: PgConnection) {
        let name = self.database_name();
        let reopen = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
        execute(&mut admin, &reopen).await;
    }

    fn database_name(&self) -> String {
        let (address, _) = self.database.url.split_once('?').unwrap();
        let (_, name) = address.rsplit_once('/').unwrap();
        name.to_owned()
    }

    /// A message for Bob, and the client that gets it.
    async fn assert_delivered(&mut self) {
        let mut connection = self.database.connect().await;
        insert_message(&mut connection, None, &self.alice, &self.bob).await;
        assert_eq!(self.client.next_json().await["type"], json!("message"));
    }
}

#[tokio::test]
async fn a_crowd_of_clients_leaves_the_database_its_descriptors() {
    let mut scene = Scene::set(None).await;
    let _crowd = crowd(scene.server.address(), true).await;
    // Every further client is refused, and the metrics are served meanwhile.
    let refused = "hushnet_connections_rejected_total{reason=\"descriptor_limit\"}";
    until("all others are refused", async || {
        let open = scene.metric("hushnet_connections_open").await;
        open + scene.metric(refused).await >= CROWD as f64 + 1.0
    })
    .await;
    scene.assert_delivered().await;

    let admin = scene.cut_database().await;
    let before = scene.metric(refused).await;
    let _more = crowd(scene.server.address(), true).await;
    until("all of them are refused", async || {
        scene.metric(refused).await >= before + CROWD as f64
    })
    .await;
    scene.restore_database(admin).await;
    scene.server.until_ready().await;
    scene.assert_delivered().await;
}

/// The metrics have an address of their own: at the other one, silent connections hold every place.
#[tokio::test]
async fn connections_that_send_nothing_leave_the_database_its_descriptors() {
    let operators = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = operators.local_addr().unwrap();
    drop(operators);
    let mut scene = Scene::set(Some(address)).await;
    let _crowd = crowd(scene.server.address(), false).await;
    let admin = scene.cut_database().await;
    let _more = crowd(scene.server.address(), false).await;
    scene.restore_database(admin).await;
    hushnet_testkit::server::until_ready(scene.operators).await;
    scene.assert_delivered().await;
    let open = scene.metric("process_open_fds").await;
    assert!(open < f64::from(LIMIT), "{open}");
}

#[tokio::test]
async fn a_limit_below_connections_max_is_said_at_the_start() {
    let database = Database::migrated().await;
    let mut server = Server::start(&mut limited(LIMIT, &database, &[])).await;
    let log = server.program.log.as_mut().unwrap();
    let line = loop {
        let line = log.line().await;
        if line.contains("descriptor_limit_low") {
            break line;
        }
    };
    for said in [
        "WARN",
        "limit=128",
        "wanted=100312",
        "connections_max=100000",
        "connections_admitted=54",
        "LimitNOFILE",
    ] {
        assert!(line.contains(said), "no {said} in {line}");
    }

    // What is wanted is enough.
    let arguments = ["--connections-max", "10", "--log", "warn"];
    let mut server = Server::start(&mut limited(400, &database, &arguments)).await;
    server.until_ready().await;
    server.program.signal("TERM").await;
    assert!(server.program.ended().await.success());
    let mut log = server.program.log.take().unwrap();
    while let Some(line) = log.next().await {
        assert!(!line.contains("descriptor_limit"), "{line}");
    }
}

#[tokio::test]
async fn a_limit_that_leaves_nothing_for_clients_is_a_mistake_of_the_call() {
    let database = Database::migrated().await;
    let output = limited(56, &database, &[]).output();
    let output = soon("the command", output).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for word in ["56 open files", "100312", "ulimit -n", "LimitNOFILE="] {
        assert!(said.contains(word), "no {word} in {said}");
    }
}
