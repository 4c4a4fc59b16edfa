//! The handle of a running broker.

use std::env;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::error::BrokerError;
use crate::options::{BrokerKind, BrokerOptions};
use crate::port;
use crate::supervisor::Supervisor;

const START_DEADLINE: Duration = Duration::from_mins(2);
const START_POLL: Duration = Duration::from_millis(10);
/// Another program may take the port between its choice and the start.
const PORTS_TRIED_MAX: usize = 5;
/// Where Debian installs servers, which is not in every PATH.
const DEBIAN_DIRECTORY: &str = "/usr/sbin";
const LOG_LINES_SHOWN: usize = 20;

/// A private broker. Dropping it kills the server and removes its directory.
#[derive(Debug)]
pub struct BrokerServer {
    kind: BrokerKind,
    options: BrokerOptions,
    port: u16,
    program: PathBuf,
    /// `None` after [`BrokerServer::kill`].
    supervisor: Option<Supervisor>,
    /// The last field, so that the server has ended before its directory goes.
    directory: TempDir,
}

impl BrokerServer {
    /// Starts a broker, and waits until it accepts connections.
    pub async fn start(kind: BrokerKind, options: BrokerOptions) -> Result<Self, BrokerError> {
        let program = kind.program();
        let program = find(program).ok_or(BrokerError::NotInstalled { program })?;
        let directory = TempDir::with_prefix("hushnet-devbus-")
            .map_err(BrokerError::io("create a directory in", &env::temp_dir()))?;
        let mut server = Self {
            kind,
            options,
            port: 0,
            program,
            supervisor: None,
            directory,
        };
        let mut tried = 0;
        loop {
            server.port = port::free()?;
            tried += 1;
            match server.launch().await {
                Err(BrokerError::Start { .. }) if tried < PORTS_TRIED_MAX => {}
                result => return result.map(|()| server),
            }
        }
    }

    /// The port, of 127.0.0.1. It stays the same.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The kind of broker.
    #[must_use]
    pub fn kind(&self) -> BrokerKind {
        self.kind
    }

    /// Kills the server with SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.kill();
        }
    }

    /// Starts the server anew, empty and on the same port; kills it before if it runs.
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        self.launch().await
    }

    /// The same, with other options.
    pub async fn restart_with(&mut self, options: BrokerOptions) -> Result<(), BrokerError> {
        self.options = options;
        self.launch().await
    }

    /// The next start has these options, as a file that was edited while the server runs.
    pub fn set_options(&mut self, options: BrokerOptions) {
        self.options = options;
    }

    /// The options of the next start.
    #[must_use]
    pub fn options(&self) -> &BrokerOptions {
        &self.options
    }

    /// Ends the server as its operator does, with SIGTERM, and waits for its end.
    pub async fn end(&mut self) {
        let Some(mut supervisor) = self.supervisor.take() else {
            return;
        };
        supervisor.send("TERM");
        let deadline = Instant::now() + START_DEADLINE;
        while !supervisor.has_exited() && Instant::now() < deadline {
            sleep(START_POLL).await;
        }
        supervisor.kill();
    }

    /// Stops the server with SIGSTOP: the kernel goes on accepting connections and bytes for it.
    pub fn freeze(&mut self) {
        self.send("STOP");
    }

    /// Continues a server that was frozen.
    pub fn thaw(&mut self) {
        self.send("CONT");
    }

    fn send(&mut self, signal: &str) {
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.send(signal);
        }
    }

    /// What the server has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    async fn launch(&mut self) -> Result<(), BrokerError> {
        self.kill();
        let directory = self.directory.path();
        let file = directory.join("server.conf");
        let text = self.kind.configuration(self.port, directory, &self.options);
        fs::write(&file, text).map_err(BrokerError::io("write", &file))?;
        let log = self.log_file();
        let log = File::create(&log).map_err(BrokerError::io("create", &log))?;
        let command: &[&Path] = match self.kind {
            BrokerKind::Redis => &[&self.program, &file],
            BrokerKind::Nats => &[&self.program, Path::new("-c"), &file],
        };
        let mut supervisor = Supervisor::launch(command, log)?;
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .is_err()
        {
            if supervisor.has_exited() || Instant::now() > deadline {
                return Err(self.not_started());
            }
            sleep(START_POLL).await;
        }
        self.supervisor = Some(supervisor);
        Ok(())
    }

    fn not_started(&self) -> BrokerError {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        BrokerError::Start {
            program: self.kind.program(),
            port: self.port,
            log: shown.join("\n"),
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = env::split_paths(&path).collect();
    directories.push(DEBIAN_DIRECTORY.into());
    let mut files = directories.iter().map(|directory| directory.join(program));
    files.find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Whether something answers on the port within the time.
    async fn answers(port: u16, wait: Duration) -> bool {
        let ask = async {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
            socket.write_all(b"PING\r\n").await.ok()?;
            socket.read_u8().await.ok()
        };
        tokio::time::timeout(wait, ask)
            .await
            .ok()
            .flatten()
            .is_some()
    }

    #[tokio::test]
    async fn each_broker_is_killed_restarted_frozen_and_continued_and_ends_with_its_handle() {
        for kind in [BrokerKind::Redis, BrokerKind::Nats] {
            let patience = Duration::from_mins(2);
            let mut server = BrokerServer::start(kind, BrokerOptions::default())
                .await
                .unwrap();
            let port = server.port();
            assert!(answers(port, patience).await);
            server.kill();
            assert!(!answers(port, patience).await);
            server.restart().await.unwrap();
            assert_eq!(server.port(), port);
            server.freeze();
            // The signal takes a moment: until then the server answers.
            let frozen = Instant::now();
            while answers(port, Duration::from_millis(500)).await {
                assert!(frozen.elapsed() < patience, "it is not frozen");
            }
            server.thaw();
            assert!(answers(port, patience).await);
            server.freeze();
            drop(server);
            assert!(!answers(port, patience).await);
        }
    }

    #[tokio::test]
    async fn a_configuration_that_is_wrong_is_reported_with_the_server_s_own_words() {
        for kind in [BrokerKind::Redis, BrokerKind::Nats] {
            let options = BrokerOptions {
                configuration: "nonsense 1 2 {".to_owned(),
                ..BrokerOptions::default()
            };
            let error = BrokerServer::start(kind, options).await.unwrap_err();
            let text = error.to_string();
            assert!(text.lines().count() > 1, "{text}");
        }
    }
}
