//! A cluster for all tests, a database for each, and a service on it.
//!
//! Nothing here sleeps for a time: what is awaited is a condition, with a deadline.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hushnet_devdb::Cluster;
use hushnet_realtime::config::Config;
use hushnet_realtime::store::migrate;
use hushnet_realtime::{app, edge};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::schema::{assert_valid_answer, assert_valid_frame};

/// How long anything may take before the test fails. Minutes, so that no test depends on how busy the
/// machine is.
pub const DEADLINE: Duration = Duration::from_mins(5);

/// Waits for a condition, looking often.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, looking).await.is_ok(),
        "still not so: {what}"
    );
}

/// Waits for a future, with the deadline.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(DEADLINE, future).await;
    outcome.unwrap_or_else(|_| panic!("still waiting for {what}"))
}

/// The cluster that all tests share. It lives on a thread of its own, since each test's runtime ends
/// with the test, and stops with the process.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            sender.send(runtime.block_on(start_cluster())).unwrap();
            runtime.block_on(std::future::pending::<()>());
        });
        receiver.recv().unwrap()
    })
}

async fn start_cluster() -> Cluster {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // What earlier runs have left; the servers have ended with their tests.
    for entry in std::fs::read_dir(home).unwrap() {
        let path = entry.unwrap().path();
        let left_by = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("postgresql-"));
        if left_by.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
    let settings = [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
        ("max_connections", "300"),
    ];
    let directory = home.join(format!("postgresql-{}", std::process::id()));
    Cluster::start_with(&directory, &settings).await.unwrap()
}

pub async fn connect(url: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    options.connect().await.unwrap()
}

pub async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .unwrap();
}

/// A database of the test's own.
#[derive(Debug, Clone)]
pub struct Database {
    pub url: String,
}

impl Database {
    /// HushNet's tables with HushNet's own triggers and nothing of ours.
    pub async fn hushnet() -> Self {
        Self::copy_of("t_hushnet", async |url| {
            let mut connection = connect(url).await;
            execute(
                &mut connection,
                include_str!("../../sql/hushnet/schema.sql"),
            )
            .await;
            execute(
                &mut connection,
                include_str!("../../sql/hushnet/triggers.sql"),
            )
            .await;
            connection.close().await.unwrap();
        })
        .await
    }

    /// The same after `migrate up`.
    pub async fn migrated() -> Self {
        let database = Self::hushnet().await;
        migrate::up(&database.url.parse().unwrap()).await.unwrap();
        database
    }

    async fn copy_of(template: &str, fill: impl AsyncFnOnce(&str)) -> Self {
        static TEMPLATE: OnceCell<()> = OnceCell::const_new();
        let mut admin = connect(&cluster().url("postgres")).await;
        TEMPLATE
            .get_or_init(async || {
                let mut admin = connect(&cluster().url("postgres")).await;
                execute(&mut admin, &format!("CREATE DATABASE {template}")).await;
                fill(&cluster().url(template)).await;
            })
            .await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        execute(
            &mut admin,
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .await;
        admin.close().await.unwrap();
        Self {
            url: cluster().url(&name),
        }
    }

    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }

    pub async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.unwrap()
    }
}

/// The service, run by `app::run` in this process.
pub struct Server {
    address: SocketAddr,
    database: Database,
    tls: bool,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), app::RunError>>,
}

impl Server {
    /// On a migrated database of its own, with the default settings.
    pub async fn start() -> Self {
        Self::start_on(Database::migrated().await, |_| {}).await
    }

    /// With settings changed.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(Database::migrated().await, change).await
    }

    /// On a database that is there; ready when this returns, unless it speaks TLS, which is not asked.
    pub async fn start_on(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let server = Self::start_unready(database, change);
        if server.tls {
            return server;
        }
        until("the service is ready", async || {
            server.get("/readyz").await.status == 200
        })
        .await;
        server
    }

    /// As [`Server::start_on`], but it may not be ready yet.
    pub fn start_unready(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            database_url: Some(database.url.parse().unwrap()),
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Config::default()
        };
        change(&mut config);
        let listener = edge::bind(config.listen).unwrap();
        let tls = config.edge.tls_certificate_file.is_some();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app::run(config, listener, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            database,
            tls,
            stop: Some(stop),
            task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub async fn db(&self) -> PgPool {
        self.database.pool().await
    }

    /// Connects a client as the specification says.
    pub async fn connect(&self, user_id: Uuid) -> Client {
        self.connect_to(&format!("/ws?user_id={user_id}")).await
    }

    pub async fn connect_to(&self, path: &str) -> Client {
        let url = format!("ws://{}{path}", self.address);
        let (socket, _) = soon("a connection", connect_async(url)).await.unwrap();
        Client { socket }
    }

    /// Connects a client that offers the subprotocol `hushnet.v1`.
    pub async fn connect_v1(&self, path: &str) -> Client {
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        request.headers_mut().insert(
            "Sec-WebSocket-Protocol",
            HeaderValue::from_static("other, hushnet.v1"),
        );
        let (socket, response) = soon("a connection", connect_async(request)).await.unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "hushnet.v1");
        Client { socket }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(&format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    /// Sends a request as it is and reads to the end of the connection.
    pub async fn request(&self, head: &str) -> Response {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        soon("a response", stream.read_to_string(&mut text))
            .await
            .unwrap();
        let response = Response::parse(&text);
        assert_valid_answer(head, &response);
        response
    }

    /// Sends a request as it is and reads one response, after which the connection may stay open.
    pub async fn first_response(&self, head: &str) -> Response {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let reading = async {
            loop {
                let read = stream.read_buf(&mut bytes).await.unwrap();
                let text = String::from_utf8_lossy(&bytes);
                let switched = text.starts_with("HTTP/1.1 101") && text.contains("\r\n\r\n");
                if read == 0 || switched {
                    return Response::parse(&text);
                }
            }
        };
        let response = soon("a response", reading).await;
        assert_valid_answer(head, &response);
        response
    }

    /// The value of a series, named with its labels as the exposition has them.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }

    pub async fn until_metric(&self, series: &str, wanted: f64) {
        until(&format!("{series} is {wanted}"), async || {
            self.metric(series).await >= wanted
        })
        .await;
    }

    /// Asks the service to stop, as a signal does.
    pub fn begin_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until it has stopped.
    pub async fn stopped(self) -> Result<(), app::RunError> {
        soon("the service to stop", self.task).await.unwrap()
    }
}

/// An HTTP response, taken apart.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Response {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or("0");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self {
            status: status.parse().unwrap(),
            headers,
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

/// A WebSocket client.
pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// The next text frame, which is one that docs/asyncapi.yaml has.
    pub async fn next_text(&mut self) -> String {
        loop {
            match soon("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    assert_valid_frame(&text);
                    return text.to_string();
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    pub async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// That its user's device was added may come in between.
    pub async fn until_type(&mut self, wanted: &str) {
        loop {
            let frame = self.next_json().await;
            if frame["type"] == wanted {
                return;
            }
            assert_eq!(frame["type"], "device");
        }
    }

    pub async fn send(&mut self, message: impl Into<Message>) {
        self.socket.send(message.into()).await.unwrap();
    }

    /// Reads to the end and returns the code with which the server closed.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match soon("a close frame", self.socket.next()).await {
                Some(Ok(Message::Close(Some(close)))) => return close.code.into(),
                Some(Ok(Message::Text(text))) => assert_valid_frame(&text),
                Some(Ok(_)) => {}
                other => panic!("expected a close frame, got {other:?}"),
            }
        }
    }
}

/// A user of the application with one device.
#[derive(Debug, Clone, Copy)]
pub struct User {
    pub id: Uuid,
    pub device_id: Uuid,
}

pub async fn add_user(pool: &PgPool) -> User {
    let name = Uuid::new_v4().to_string();
    let id = sqlx::query_scalar("INSERT INTO users (username) VALUES ($1) RETURNING id")
        .bind(name)
        .fetch_one(pool)
        .await
        .unwrap();
    User {
        id,
        device_id: add_device(pool, id).await,
    }
}

pub async fn add_device(pool: &PgPool, user_id: Uuid) -> Uuid {
    sqlx::query_scalar(
        "INSERT INTO devices (user_id, identity_pubkey, prekey_pubkey, signed_prekey_pub, \
         signed_prekey_sig, one_time_prekeys) \
         VALUES ($1, gen_random_uuid()::text, '', '', '', '[]') RETURNING id",
    )
    .bind(user_id)
    .fetch_one(pool)
    .await
    .unwrap()
}

pub async fn add_chat(pool: &PgPool, a: &User, b: &User) -> Uuid {
    sqlx::query_scalar(
        "INSERT INTO chats (user_a, user_b) VALUES (least($1, $2), greatest($1, $2)) RETURNING id",
    )
    .bind(a.id)
    .bind(b.id)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Inserts a message row as the application does, in a transaction of its own or in yours.
pub async fn insert_message<'e>(
    executor: impl sqlx::PgExecutor<'e>,
    chat_id: Option<Uuid>,
    from: &User,
    to: &User,
) {
    sqlx::query(
        "INSERT INTO messages (logical_msg_id, chat_id, from_user_id, from_device_id, to_user_id, \
         to_device_id, header, ciphertext) VALUES ('m', $1, $2, $3, $4, $5, '{}', 'c')",
    )
    .bind(chat_id)
    .bind(from.id)
    .bind(from.device_id)
    .bind(to.id)
    .bind(to.device_id)
    .execute(executor)
    .await
    .unwrap();
}

/// Notifies by hand.
pub async fn notify(pool: &PgPool, channel: &str, payload: &str) {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(channel)
        .bind(payload)
        .execute(pool)
        .await
        .unwrap();
}
