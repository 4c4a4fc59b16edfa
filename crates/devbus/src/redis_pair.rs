//! A Redis and its replica, and what their operator does by hand.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::error::BrokerError;
use crate::options::{BrokerKind, BrokerOptions};
use crate::server::BrokerServer;

const DEADLINE: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(20);

/// Two Redis servers, one a replica of the other. Their default user may do everything, without a password. Dropping it
/// kills them.
#[derive(Debug)]
pub struct RedisPair {
    servers: [BrokerServer; 2],
    primary: usize,
}

impl RedisPair {
    /// Starts both with these options, and waits until the second is a replica of the first.
    pub async fn start(options: &BrokerOptions) -> Result<Self, BrokerError> {
        let options = BrokerOptions {
            configuration: format!("repl-diskless-sync-delay 0\n{}", options.configuration),
            tls: options.tls.clone(),
        };
        let pair = Self {
            servers: [
                BrokerServer::start(BrokerKind::Redis, options.clone()).await?,
                BrokerServer::start(BrokerKind::Redis, options).await?,
            ],
            primary: 0,
        };
        pair.demote().await?;
        Ok(pair)
    }

    /// The primary.
    #[must_use]
    pub fn primary(&self) -> &BrokerServer {
        &self.servers[self.primary]
    }

    /// The same, to kill and restart.
    pub fn primary_mut(&mut self) -> &mut BrokerServer {
        &mut self.servers[self.primary]
    }

    /// The other one.
    #[must_use]
    pub fn replica(&self) -> &BrokerServer {
        &self.servers[1 - self.primary]
    }

    /// The same, to kill and restart.
    pub fn replica_mut(&mut self) -> &mut BrokerServer {
        &mut self.servers[1 - self.primary]
    }

    /// Both servers.
    pub fn servers_mut(&mut self) -> &mut [BrokerServer] {
        &mut self.servers
    }

    /// Asks both servers for this.
    pub async fn ask_both(&self, command: &str) -> Result<(), BrokerError> {
        for server in &self.servers {
            ask(server, command).await?;
        }
        Ok(())
    }

    /// Asks the primary for this.
    pub async fn ask_primary(&self, command: &str) -> Result<String, BrokerError> {
        ask(self.primary(), command).await
    }

    /// Asks the replica for this.
    pub async fn ask_replica(&self, command: &str) -> Result<String, BrokerError> {
        ask(self.replica(), command).await
    }

    /// Both change places by `FAILOVER`, with which nothing that was written is lost. Connections stay where they are.
    pub async fn fail_over(&mut self) -> Result<(), BrokerError> {
        ask(self.primary(), "FAILOVER").await?;
        self.until_linked(self.replica(), self.primary()).await?;
        self.primary = 1 - self.primary;
        Ok(())
    }

    /// Makes the replica a primary. The former one stays one, too, if it runs: nothing is between them until
    /// [`RedisPair::demote`].
    pub async fn promote(&mut self) -> Result<(), BrokerError> {
        ask(self.replica(), "REPLICAOF NO ONE").await?;
        self.primary = 1 - self.primary;
        Ok(())
    }

    /// Makes the other one a replica, and waits until it is.
    pub async fn demote(&self) -> Result<(), BrokerError> {
        let command = format!("REPLICAOF 127.0.0.1 {}", self.primary().port());
        ask(self.replica(), &command).await?;
        self.until_linked(self.primary(), self.replica()).await
    }

    async fn until_linked(
        &self,
        primary: &BrokerServer,
        replica: &BrokerServer,
    ) -> Result<(), BrokerError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let of_primary = ask(primary, "INFO replication").await?;
            let of_replica = ask(replica, "INFO replication").await?;
            let is_linked =
                of_primary.contains("role:master") && of_replica.contains("master_link_status:up");
            if is_linked {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(BrokerError::Command {
                    port: replica.port(),
                    command: "INFO replication".to_owned(),
                    answer: of_replica,
                });
            }
            sleep(POLL).await;
        }
    }
}

/// Sends a Redis server a command, as `redis-cli` does, and returns its answer.
async fn ask(server: &BrokerServer, command: &str) -> Result<String, BrokerError> {
    let port = server.port();
    let answer = converse(port, command).await;
    let answer = answer.unwrap_or_else(|error| format!("-{error}"));
    if answer.starts_with('-') {
        return Err(BrokerError::Command {
            port,
            command: command.to_owned(),
            answer,
        });
    }
    Ok(answer)
}

async fn converse(port: u16, command: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket
        .write_all(format!("{command}\r\n").as_bytes())
        .await?;
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let length = line.strip_prefix('$').map(|length| length.trim().parse());
    let Some(Ok(length)) = length else {
        return Ok(line.trim().to_owned());
    };
    let mut text = vec![0; length];
    reader.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_redis_and_its_replica_change_places() {
        let mut pair = RedisPair::start(&BrokerOptions::default()).await.unwrap();
        let first = pair.primary().port();
        pair.ask_primary("SET a 1").await.unwrap();
        pair.fail_over().await.unwrap();
        assert_ne!(pair.primary().port(), first);
        assert_eq!(pair.ask_primary("GET a").await.unwrap(), "1");
        assert!(pair.ask_replica("SET a 2").await.is_err());
        pair.promote().await.unwrap();
        pair.ask_both("SET a 3").await.unwrap();
        pair.demote().await.unwrap();
        assert!(pair.ask_replica("SET a 4").await.is_err());
    }
}
