//! The service under test: `app::run` in this process, or the binary, which can be killed.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use hushnet_realtime::config::Config;
use hushnet_realtime::{app, edge};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running service.
#[derive(Debug)]
pub struct Service {
    pub address: SocketAddr,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Here {
        stop: oneshot::Sender<()>,
        task: JoinHandle<Result<(), app::RunError>>,
    },
    Binary(Child),
}

impl Service {
    /// In this process, with settings changed; ready when this returns.
    pub async fn start(database_url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            database_url: Some(database_url.parse().unwrap()),
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Config::default()
        };
        change(&mut config);
        let listener = edge::bind(config.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app::run(config, listener, async {
            let _ = stopped.await;
        }));
        let service = Self {
            address,
            running: Running::Here { stop, task },
        };
        service.until_ready().await;
        service
    }

    /// As a process of its own, on this address; port 0 picks a free one.
    pub async fn start_binary(database_url: &str, address: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hushnet-realtime"))
            .args(["serve", "--log", "warn", "--listen", &address.to_string()])
            .args(["--database-url", database_url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let address = line.rsplit_once("http://").unwrap().1.parse().unwrap();
        let service = Self {
            address,
            running: Running::Binary(child),
        };
        service.until_ready().await;
        service
    }

    /// Ends the process without a warning.
    pub async fn kill(self) {
        match self.running {
            Running::Binary(mut child) => child.kill().await.unwrap(),
            Running::Here { .. } => unreachable!("only a process of its own can be killed"),
        }
    }

    pub async fn stop(self) {
        match self.running {
            Running::Here { stop, task } => {
                let _ = stop.send(());
                task.await.unwrap().unwrap();
            }
            Running::Binary(mut child) => child.kill().await.unwrap(),
        }
    }

    pub async fn until_ready(&self) {
        let looking = async {
            while !self.get("/readyz").await.starts_with("HTTP/1.1 200") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(Duration::from_secs(30), looking).await;
        assert!(ready.is_ok(), "the service is not ready");
    }

    async fn get(&self, path: &str) -> String {
        let mut text = String::new();
        let asking = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.read_to_string(&mut text).await
        };
        // Not there yet, or gone: the text is empty.
        let _ = asking.await;
        text
    }

    /// What the service itself counts, without what is zero.
    pub async fn counters(&self, names: &[&str]) -> String {
        let text = self.get("/metrics").await;
        text.lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .filter(|line| !line.ends_with(" 0"))
            .collect::<Vec<_>>()
            .join("; ")
    }
}
