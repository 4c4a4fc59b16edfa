//! The service under test: `app::run` in this process, or the program, which can be killed.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use hushnet_realtime::config::Config;
use hushnet_realtime::{app, edge};
use hushnet_testkit::http;
use hushnet_testkit::program::command;
use hushnet_testkit::server::{Server, until_ready};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::lab::Lab;

/// A running service.
#[derive(Debug)]
pub struct Service {
    pub address: SocketAddr,
    running: Running,
}

#[derive(Debug)]
enum Running {
    InProcess {
        stop: oneshot::Sender<()>,
        task: JoinHandle<Result<(), app::RunError>>,
    },
    Program(Box<Server>),
}

impl Service {
    /// In this process, with changed settings. The service is ready when this returns.
    pub async fn start(database_url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            database_url: Some(database_url.parse().unwrap()),
            replication_url: Lab::replication_url(database_url).map(|url| url.parse().unwrap()),
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
        until_ready(address).await;
        Self {
            address,
            running: Running::InProcess { stop, task },
        }
    }

    /// As a process of its own, on this address. Port 0 picks a free one.
    pub async fn start_binary(database_url: &str, address: SocketAddr) -> Self {
        let mut command = command(env!("CARGO_BIN_EXE_hushnet-realtime"));
        command
            .args(["serve", "--log", "warn", "--listen", &address.to_string()])
            .args(["--database-url", database_url])
            .stderr(Stdio::null());
        if let Some(url) = Lab::replication_url(database_url) {
            command.args(["--replication-url", &url]);
        }
        let server = Server::start(&mut command).await;
        server.until_ready().await;
        Self {
            address: server.address(),
            running: Running::Program(Box::new(server)),
        }
    }

    /// As one of many nodes, on this address, with these arguments besides. It may not be ready yet when this returns. Its
    /// log is appended to the file.
    pub async fn start_node(
        database_url: &str,
        address: SocketAddr,
        arguments: &[String],
        log: &Path,
    ) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut command = command(env!("CARGO_BIN_EXE_hushnet-realtime"));
        command
            .args(["serve", "--log", "info", "--listen", &address.to_string()])
            .args(["--database-url", database_url])
            .args(arguments)
            .stderr(log.unwrap());
        if let Some(url) = Lab::replication_url(database_url) {
            command.args(["--replication-url", &url]);
        }
        let server = Server::start(&mut command).await;
        Self {
            address: server.address(),
            running: Running::Program(Box::new(server)),
        }
    }

    /// Sends the process a signal, named without SIG.
    pub async fn signal(&self, name: &str) {
        match &self.running {
            Running::Program(server) => server.program.signal(name).await,
            Running::InProcess { .. } => unreachable!("only a process of its own is signalled"),
        }
    }

    /// Has the process end by itself, and waits until it has.
    pub async fn terminate(self) {
        self.signal("TERM").await;
        if let Running::Program(mut server) = self.running {
            server.program.ended().await;
        }
    }

    /// The sum of these metrics; `None` if the service does not answer.
    pub async fn gauges(&self, names: &[&str]) -> Option<f64> {
        let exposition = http::get(self.address, "/metrics").await.ok()?;
        names.iter().map(|name| exposition.metric(name)).sum()
    }

    /// Kills the process.
    pub async fn kill(self) {
        match self.running {
            Running::Program(server) => server.program.kill().await,
            Running::InProcess { .. } => unreachable!("only a process of its own can be killed"),
        }
    }

    pub async fn stop(self) {
        match self.running {
            Running::InProcess { stop, task } => {
                let _ = stop.send(());
                task.await.unwrap().unwrap();
            }
            Running::Program(server) => server.program.kill().await,
        }
    }

    /// Whether the service is ready. No, if it cannot be reached.
    pub async fn is_ready(&self) -> bool {
        let ready = http::get(self.address, "/readyz").await;
        ready.is_ok_and(|answer| answer.status == 200)
    }

    /// The value of a counter without labels.
    pub async fn counter(&self, name: &str) -> f64 {
        let exposition = http::get(self.address, "/metrics").await.unwrap();
        let value = exposition.metric(name);
        value.unwrap_or_else(|| panic!("no {name} in {}", exposition.body))
    }

    /// The service's own counters, without those that are zero.
    pub async fn counters(&self, names: &[&str]) -> String {
        let exposition = http::get(self.address, "/metrics").await.unwrap().body;
        exposition
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .filter(|line| !line.ends_with(" 0"))
            .collect::<Vec<_>>()
            .join("; ")
    }
}
