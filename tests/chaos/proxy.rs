//! The network between the service and PostgreSQL. A cut drops packets silently, without an error.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The state of the link.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Connections up to this number are dead for ever: their bytes are dropped without an error.
    dead_through: u64,
    /// New connections are dead too.
    down: bool,
}

/// Forwards a TCP port to a Unix socket.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    connections: Arc<Mutex<u64>>,
    target: Arc<Mutex<PathBuf>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Forwards a free port of this machine.
    pub async fn start(target: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (link, target) = (watch::Sender::default(), Arc::new(Mutex::new(target)));
        let connections = Arc::new(Mutex::new(0));
        let task = tokio::spawn(accept(
            listener,
            link.clone(),
            Arc::clone(&connections),
            Arc::clone(&target),
        ));
        Self {
            port,
            link,
            connections,
            target,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where new connections go from now on.
    pub fn lead_to(&self, target: PathBuf) {
        *self.target.lock().unwrap() = target;
    }

    /// Drops the bytes of every connection, present and future.
    pub fn cut(&self) {
        let dead_through = *self.connections.lock().unwrap();
        self.link.send_replace(Link {
            dead_through,
            down: true,
        });
    }

    /// New connections work again. Those that were cut stay dead.
    pub fn mend(&self) {
        let dead_through = *self.connections.lock().unwrap();
        self.link.send_replace(Link {
            dead_through,
            down: false,
        });
    }
}

async fn accept(
    listener: TcpListener,
    link: watch::Sender<Link>,
    connections: Arc<Mutex<u64>>,
    target: Arc<Mutex<PathBuf>>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let number = {
            let mut connections = connections.lock().unwrap();
            *connections += 1;
            *connections
        };
        let (target, link) = (target.lock().unwrap().clone(), link.subscribe());
        tasks.spawn(forward(client, target, number, link));
        while tasks.try_join_next().is_some() {}
    }
}

async fn forward(
    mut client: TcpStream,
    target: PathBuf,
    number: u64,
    mut link: watch::Receiver<Link>,
) {
    let _ = client.set_nodelay(true);
    let down = async |link: &mut watch::Receiver<Link>| {
        let cut = |link: &Link| link.dead_through >= number || link.down;
        if link.wait_for(cut).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let both = async {
        let Ok(mut server) = UnixStream::connect(&target).await else {
            return;
        };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            () = copy(&mut from_client, &mut to_server) => {}
            () = copy(&mut from_server, &mut to_client) => {}
            () = down(&mut link) => {
                // Both sockets stay open and are not read.
                std::future::pending::<()>().await;
            }
        }
    };
    both.await;
}

async fn copy(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
