//! The settings: name, default, bounds and description of each, declared once.
//!
//! A setting `user_channel_capacity` is the flag `--user-channel-capacity`, the environment variable
//! `HUSHNET_USER_CHANNEL_CAPACITY` and the key `user_channel_capacity` of the TOML file. The flag wins
//! over the variable, the variable over the file, the file over the default. All three pass the same
//! parser, so a number out of bounds is refused in the same words wherever it stands. `docs/operations.md`
//! has a table of them that is made from these declarations.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command, ValueEnum};
use serde::Serialize;

use super::bounds::within;
use super::{
    AuthMode, ChannelNames, ConfigError, DatabaseUrl, EdgeSettings, IdentitySettings, Ingest,
    LimitSettings, NodeSettings,
};

/// The settings of the service, validated.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Settings")]
pub struct Config {
    /// TOML file with these settings, `_` for `-`. A flag or a variable wins over it
    #[arg(long, env = "HUSHNET_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The application's database, as `postgres://user:password@host:port/name`
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_url: Option<DatabaseUrl>,

    /// Database connections for requests of clients. The service's own work has up to eight others, with
    /// `replication_url` ten, with `bus` one more, and with identity the look-ups have up to four
    #[arg(long, env = "HUSHNET_DATABASE_POOL_SIZE", value_name = "CONNECTIONS",
          default_value_t = 4, value_parser = within(1..=1_000))]
    pub database_pool_size: u32,

    /// Address to serve on. Port 0 picks a free one
    #[arg(
        long,
        env = "HUSHNET_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub identity: IdentitySettings,

    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub edge: EdgeSettings,

    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitSettings,

    /// Events that a connection may fall behind before it is repaired. Memory is taken for each connected
    /// user, rounded up to a power of two
    #[arg(long, env = "HUSHNET_USER_CHANNEL_CAPACITY", value_name = "EVENTS",
          default_value_t = 16, value_parser = within(1..=4_096))]
    pub user_channel_capacity: u32,

    /// The longest event, as JSON. Of a longer one clients are sent the key alone
    #[arg(long, env = "HUSHNET_EVENT_BYTES_MAX", value_name = "BYTES",
          default_value_t = 1_048_576, value_parser = within(8_192..=1_048_576))]
    pub event_bytes_max: u32,

    /// Memory of the replay buffer, which serves clients that come back soon without a query
    #[arg(long, env = "HUSHNET_RECENT_BYTES_MAX", value_name = "BYTES",
          default_value_t = 134_217_728, value_parser = within(65_536..=4_294_967_295))]
    pub recent_bytes_max: u32,

    /// Age of the oldest event in the replay buffer
    #[arg(long, env = "HUSHNET_RECENT_AGE_MAX_MS", value_name = "MILLISECONDS",
          default_value_t = 300_000, value_parser = within(1_000..=86_400_000))]
    pub recent_age_max_ms: u32,

    /// Age at which events leave the log. A client that comes back later is reset
    #[arg(long, env = "HUSHNET_RETENTION_HOURS", value_name = "HOURS",
          default_value_t = 168, value_parser = within(1..=87_600))]
    pub retention_hours: u32,

    /// How often a barrier is sent. After three that did not come back the listener reconnects
    #[arg(long, env = "HUSHNET_BARRIER_INTERVAL_MS", value_name = "MILLISECONDS",
          default_value_t = 1_000, value_parser = within(50..=60_000))]
    pub barrier_interval_ms: u32,

    /// How events reach the server, written to the database at the start. `auto` changes nothing that somebody has chosen
    #[arg(
        long,
        env = "HUSHNET_INGEST",
        value_name = "WAY",
        default_value = "auto"
    )]
    pub ingest: Option<Ingest>,

    /// The same database for a role that has REPLICATION, directly and behind no pooler, for `wal`. That right reads every
    /// table of the cluster
    #[arg(
        long,
        env = "HUSHNET_REPLICATION_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_url: Option<DatabaseUrl>,

    /// The most of the write-ahead log that PostgreSQL keeps for this server with `wal`. Beyond it the server gives up its
    /// slot and reads the log
    #[arg(long, env = "HUSHNET_WAL_LAG_BYTES_MAX", value_name = "BYTES",
          default_value_t = 268_435_456, value_parser = within(1_048_576..=4_294_967_295))]
    pub wal_lag_bytes_max: u32,

    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub nodes: NodeSettings,

    /// PostgreSQL channels of the application's own triggers, with commas between. HushNet's four are always listened
    /// to, and so are the log's
    #[arg(
        long,
        env = "HUSHNET_CHANNELS",
        value_name = "CHANNELS",
        default_value = "messages_channel,sessions_channel,devices_channel,pending_sessions_channel"
    )]
    pub channels: ChannelNames,

    /// Silence on a connection after which the server pings
    #[arg(long, env = "HUSHNET_PING_INTERVAL_MS", value_name = "MILLISECONDS",
          default_value_t = 25_000, value_parser = within(100..=3_600_000))]
    pub ping_interval_ms: u32,

    /// Time for a client to answer a ping. Then it is closed with 4009
    #[arg(long, env = "HUSHNET_PONG_TIMEOUT_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=3_600_000))]
    pub pong_timeout_ms: u32,

    /// Time that a write to a socket may be blocked, and once more for each 256 KiB of a large event. Then the client is
    /// closed with 4008
    #[arg(long, env = "HUSHNET_WRITE_TIMEOUT_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=3_600_000))]
    pub write_timeout_ms: u32,

    /// Clients that are sent to other servers in a second after SIGTERM or SIGINT: as many as the others
    /// can take
    #[arg(long, env = "HUSHNET_DRAIN_CLIENTS_PER_SECOND", value_name = "CLIENTS",
          default_value_t = 2_000, value_parser = within(1..=1_000_000))]
    pub drain_clients_per_second: u32,

    /// Time to close everything after SIGTERM or SIGINT, whatever that rate
    #[arg(long, env = "HUSHNET_DRAIN_DEADLINE_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=3_600_000))]
    pub drain_deadline_ms: u32,

    /// What is logged on standard error: a level, or levels by module as in `info,sqlx=warn`
    #[arg(
        long,
        env = "HUSHNET_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// The form of a log line
    #[arg(
        long,
        env = "HUSHNET_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Address that takes notifications from any connection, one a line; for benchmarks alone
    #[cfg(feature = "injector")]
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip)]
    pub inject: Option<SocketAddr>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The database to serve.
    ///
    /// # Errors
    /// [`ConfigError::NoDatabase`] when none is named.
    pub fn database(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.database_url.as_ref().ok_or(ConfigError::NoDatabase)
    }

    /// Refuses settings that would serve events to whoever asks.
    ///
    /// # Errors
    /// [`ConfigError::NotLoopback`] for an address that others can reach, unless clients have to prove
    /// who they are, or it is insisted on.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        let identity = &self.identity;
        if self.listen.ip().is_loopback()
            || identity.auth != AuthMode::None
            || identity.insecure_no_auth
        {
            return Ok(());
        }
        Err(ConfigError::NotLoopback(self.listen))
    }

    /// Whether requests are served whichever host they name. Without identity, listening on loopback is all that keeps
    /// others out; a page whose name was made to point there would be of the same origin to its browser.
    #[must_use]
    pub fn serves_any_host(&self) -> bool {
        let identity = &self.identity;
        identity.auth != AuthMode::None || identity.insecure_no_auth
    }

    /// Whether `/metrics` is served at the clients' address: where clients have to prove an identity, only if the
    /// operator has said so.
    #[must_use]
    pub fn serves_metrics_to_clients(&self) -> bool {
        let unsaid = self.edge.metrics_listen.is_none() && self.identity.auth == AuthMode::None;
        self.edge.metrics.unwrap_or(unsaid)
    }

    /// The settings as a TOML file that would set them, secrets masked.
    ///
    /// # Panics
    /// Never: every field is a TOML value.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| unreachable!("a setting is no TOML: {error}"))
    }

    /// `ping_interval_ms` as a duration; likewise the ones below.
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn barrier_interval(&self) -> Duration {
        Duration::from_millis(self.barrier_interval_ms.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn recent_age_max(&self) -> Duration {
        Duration::from_millis(self.recent_age_max_ms.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn retention(&self) -> Duration {
        Duration::from_hours(self.retention_hours.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn pong_timeout(&self) -> Duration {
        Duration::from_millis(self.pong_timeout_ms.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn request_head_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.request_head_timeout_ms.into())
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.drain_deadline_ms.into())
    }
}

impl Default for Config {
    /// Every setting at its default, whatever the environment says: what tests start from.
    fn default() -> Self {
        let matches = without_environment(settings())
            .try_get_matches_from([""])
            .unwrap_or_else(|error| unreachable!("a default is out of its bounds: {error}"));
        clap::FromArgMatches::from_arg_matches(&matches)
            .unwrap_or_else(|error| unreachable!("a default is missing: {error}"))
    }
}

/// A command line that has the settings and nothing else.
pub(super) fn settings() -> Command {
    Config::augment_args(Command::new("settings").no_binary_name(false))
}

/// The same, deaf to the environment.
pub(super) fn without_environment(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        let config = Config::default();
        assert_eq!(config.user_channel_capacity, 16);
        assert_eq!(config.ping_interval(), Duration::from_secs(25));
        config.check_exposure().unwrap();
    }

    #[test]
    fn an_address_that_others_can_reach_needs_proofs_or_consent() {
        let mut config = Config {
            listen: "0.0.0.0:8080".parse().unwrap(),
            ..Config::default()
        };
        let error = config.check_exposure().unwrap_err().to_string();
        assert!(error.contains("--insecure-no-auth"), "{error}");
        config.identity.auth = AuthMode::Device;
        config.check_exposure().unwrap();
        config.identity.auth = AuthMode::None;
        config.identity.insecure_no_auth = true;
        config.check_exposure().unwrap();
    }
}
