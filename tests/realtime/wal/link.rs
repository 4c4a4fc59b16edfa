//! The network between the server and its walsender, on which the server's answers can be kept back.

use std::path::PathBuf;

use hushnet_realtime::config::DatabaseUrl;
use hushnet_testkit::roles;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::support::Database;

const BUFFER_BYTES: usize = 16 << 10;

/// Forwards a free port of this machine to a cluster's socket.
pub struct Link {
    port: u16,
    database: String,
    /// How many connections there were when answers began to be kept back. These bring PostgreSQL nothing any more, and what
    /// PostgreSQL sends goes on.
    kept_back: watch::Sender<u64>,
    connections: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    pub async fn to(database: &Database) -> Self {
        let options: PgConnectOptions = database.owner_url().parse().unwrap();
        let socket = options.get_socket().unwrap();
        let socket = socket.join(format!(".s.PGSQL.{}", options.get_port()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (kept_back, keeping) = watch::channel(0);
        let (count, connections) = watch::channel(0);
        let task = tokio::spawn(accept(listener, socket, count, keeping));
        Self {
            port,
            database: options.get_database().unwrap().to_owned(),
            kept_back,
            connections,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The address for the role that may stream.
    pub fn url(&self, role: &str) -> DatabaseUrl {
        let Self { port, database, .. } = self;
        let url = format!("postgres://any@127.0.0.1:{port}/{database}?sslmode=disable");
        roles::url_as(&url, role).parse().unwrap()
    }

    /// Keeps back what comes over the connections that there are. New ones work.
    pub fn keep_back(&self) {
        self.kept_back.send_replace(*self.connections.borrow());
    }
}

async fn accept(
    listener: TcpListener,
    socket: PathBuf,
    count: watch::Sender<u64>,
    keeping: watch::Receiver<u64>,
) {
    let mut forwarding = JoinSet::new();
    for number in 1.. {
        let (client, _) = listener.accept().await.unwrap();
        let server = UnixStream::connect(&socket).await.unwrap();
        count.send_replace(number);
        forwarding.spawn(forward(client, server, number, keeping.clone()));
        while forwarding.try_join_next().is_some() {}
    }
}

/// Ends when PostgreSQL or the server ends the connection.
async fn forward(
    mut client: TcpStream,
    mut server: UnixStream,
    number: u64,
    keeping: watch::Receiver<u64>,
) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answers = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(bytes @ 1..) = from_client.read(&mut buffer).await {
            if *keeping.borrow() >= number {
                continue;
            }
            if to_server.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
        }
    };
    let sent = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = answers => {}
        _ = sent => {}
    }
}
