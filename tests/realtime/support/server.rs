//! The service, run by `app::run` in this process.

use std::net::SocketAddr;

use hushnet_realtime::config::Config;
use hushnet_realtime::{app, edge};
use hushnet_testkit::client::{self, Client, SUBPROTOCOL_HEADER};
use hushnet_testkit::http::{self, Response};
use hushnet_testkit::server::until_ready;
use hushnet_testkit::wait::{soon, until};
use sqlx::PgPool;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::client::connect_client;
use super::database::Database;
use crate::schema::{assert_valid_answer, assert_valid_frame};

/// A running service.
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

    /// With changed settings.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(Database::migrated().await, change).await
    }

    /// On this database. The service is ready when this returns, unless it serves TLS: then it is
    /// not asked.
    pub async fn start_on(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let server = Self::start_unready(database, change);
        if !server.tls {
            until_ready(server.address).await;
        }
        server
    }

    /// As [`Server::start_on`], but the service may not be ready yet.
    pub fn start_unready(database: Database, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            database_url: Some(database.url.parse().unwrap()),
            replication_url: database.replication_of_all(),
            listen: "127.0.0.1:0".parse().unwrap(),
            // A test may do something else for longer than its clients' answers could wait.
            pong_timeout_ms: 600_000,
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

    /// Sessions of the application.
    pub async fn db(&self) -> PgPool {
        self.database.pool().await
    }

    /// Connects a client that offers no subprotocol.
    pub async fn connect(&self, user_id: Uuid) -> Client {
        self.connect_to(&format!("/ws?user_id={user_id}")).await
    }

    pub async fn connect_to(&self, path: &str) -> Client {
        connect_client(&format!("ws://{}{path}", self.address)).await
    }

    /// Connects a client that offers the subprotocol `hushnet.v1`.
    pub async fn connect_v1(&self, path: &str) -> Client {
        let url = format!("ws://{}{path}", self.address);
        let request = client::request(&url, &[(SUBPROTOCOL_HEADER, "other, hushnet.v1")]);
        let (client, response) = Client::connect(request, None, assert_valid_frame)
            .await
            .unwrap();
        assert_eq!(response.headers()[SUBPROTOCOL_HEADER], "hushnet.v1");
        client
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(&http::get_head(path)).await
    }

    /// Sends the bytes of a request unchanged and reads until the server closes the connection.
    pub async fn request(&self, head: &str) -> Response {
        let response = http::request(self.address, head).await.unwrap();
        assert_valid_answer(head, &response);
        response
    }

    /// Sends the bytes of a request unchanged and reads one response. The connection may stay open.
    pub async fn first_response(&self, head: &str) -> Response {
        let response = http::first_response(self.address, head).await.unwrap();
        assert_valid_answer(head, &response);
        response
    }

    /// The value of a series, named with its labels as the exposition has them.
    pub async fn metric(&self, series: &str) -> f64 {
        let response = self.get("/metrics").await;
        let value = response.metric(series);
        value.unwrap_or_else(|| panic!("no series {series} in\n{}", response.body))
    }

    pub async fn until_metric(&self, series: &str, wanted: f64) {
        until(&format!("{series} is {wanted}"), async || {
            self.metric(series).await >= wanted
        })
        .await;
    }

    /// Tells the service to stop, as a signal does.
    pub fn begin_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Stops the service.
    pub async fn stopped_now(mut self) {
        self.begin_stop();
        self.stopped().await.unwrap();
    }

    /// Waits until the service has stopped.
    pub async fn stopped(self) -> Result<(), app::RunError> {
        soon("the service to stop", self.task).await.unwrap()
    }
}
