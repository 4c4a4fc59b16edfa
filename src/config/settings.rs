//! Every setting: its name, its default, its bounds and its description, declared once.
//!
//! A setting `user_channel_capacity` is the flag `--user-channel-capacity`, the environment variable
//! `HUSHNET_USER_CHANNEL_CAPACITY` and the key `user_channel_capacity` of the TOML file; the first of
//! these that is given wins, then the default. Values from all three pass the same parser, so a
//! number out of bounds is refused in the same words wherever it stands. Owns no behaviour.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, Command, ValueEnum};
use serde::Serialize;

use super::bounds::within;
use super::{
    AuthMode, ConfigError, DatabaseUrl, EdgeSettings, IdentitySettings, Ingest, LimitSettings,
};

/// The settings of the service, validated.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Settings")]
pub struct Config {
    /// TOML file with settings by the names below, `_` for `-`; a flag or a variable wins over it
    #[arg(long, env = "HUSHNET_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The application's database, as postgres://user:password@host:port/name
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_url: Option<DatabaseUrl>,

    /// Database connections for what clients ask; the service's own work has up to five others
    #[arg(long, env = "HUSHNET_DATABASE_POOL_SIZE", value_name = "CONNECTIONS",
          default_value_t = 4, value_parser = within(1..=1_000))]
    pub database_pool_size: u32,

    /// Address to serve on; port 0 picks a free one
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

    /// Events that a connection may fall behind; memory is taken at once for each connected user,
    /// rounded up to a power of two
    #[arg(long, env = "HUSHNET_USER_CHANNEL_CAPACITY", value_name = "EVENTS",
          default_value_t = 16, value_parser = within(1..=4_096))]
    pub user_channel_capacity: u32,

    /// Memory for recent events, from which clients that come back soon are served without a query
    #[arg(long, env = "HUSHNET_RECENT_BYTES_MAX", value_name = "BYTES",
          default_value_t = 134_217_728, value_parser = within(65_536..=4_294_967_295))]
    pub recent_bytes_max: u32,

    /// Age of the oldest of them
    #[arg(long, env = "HUSHNET_RECENT_AGE_MAX_MS", value_name = "MILLISECONDS",
          default_value_t = 300_000, value_parser = within(1_000..=86_400_000))]
    pub recent_age_max_ms: u32,

    /// Age at which events leave the log; a client that comes back later has to fetch its state anew
    #[arg(long, env = "HUSHNET_RETENTION_HOURS", value_name = "HOURS",
          default_value_t = 168, value_parser = within(1..=87_600))]
    pub retention_hours: u32,

    /// How often a barrier proves that nothing was missed; after three that did not come back the
    /// listener is rebuilt
    #[arg(long, env = "HUSHNET_BARRIER_INTERVAL_MS", value_name = "MILLISECONDS",
          default_value_t = 1_000, value_parser = within(50..=60_000))]
    pub barrier_interval_ms: u32,

    /// How events reach the server, written to the database when the service starts; without it the
    /// database's own value stands (notify after `migrate up`)
    #[arg(long, env = "HUSHNET_INGEST", value_name = "WAY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Ingest>,

    /// Silence on a connection after which the server pings
    #[arg(long, env = "HUSHNET_PING_INTERVAL_MS", value_name = "MILLISECONDS",
          default_value_t = 25_000, value_parser = within(100..=3_600_000))]
    pub ping_interval_ms: u32,

    /// Time for a client to answer a ping; then it is closed with 4009
    #[arg(long, env = "HUSHNET_PONG_TIMEOUT_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=3_600_000))]
    pub pong_timeout_ms: u32,

    /// Time that a write to a socket may be blocked; then it is closed with 4008
    #[arg(long, env = "HUSHNET_WRITE_TIMEOUT_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=3_600_000))]
    pub write_timeout_ms: u32,

    /// Clients that go elsewhere in a second after SIGTERM or SIGINT: what the other servers can take
    #[arg(long, env = "HUSHNET_DRAIN_CLIENTS_PER_SECOND", value_name = "CLIENTS",
          default_value_t = 2_000, value_parser = within(1..=1_000_000))]
    pub drain_clients_per_second: u32,

    /// Time to close everything after SIGTERM or SIGINT, whatever that rate
    #[arg(long, env = "HUSHNET_DRAIN_DEADLINE_MS", value_name = "MILLISECONDS",
          default_value_t = 10_000, value_parser = within(100..=3_600_000))]
    pub drain_deadline_ms: u32,

    /// What is logged: a level, or levels by module as in `info,sqlx=warn`
    #[arg(
        long,
        env = "HUSHNET_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,

    /// How it is logged, on standard error
    #[arg(
        long,
        env = "HUSHNET_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Address that takes notifications from whoever connects, one a line; for benchmarks alone
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

    /// The settings as a TOML file that would set them, secrets masked.
    ///
    /// # Panics
    /// Never: every field is a TOML value.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| unreachable!("a setting is no TOML: {error}"))
    }

    /// The flags that say what the file at `path` says, for a parser that lets later flags win.
    /// A key whose variable is set is left out, since the variable wins.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the file, the key and what is allowed.
    pub fn flags_of_file(path: &Path) -> Result<Vec<OsString>, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        let table: toml::Table = toml::from_str(&text).map_err(|cause| ConfigError::NotToml {
            path: path.to_owned(),
            cause,
        })?;
        let settings = settings();
        let mut flags = Vec::with_capacity(table.len());
        for (key, value) in &table {
            let flag = flag_of_entry(path, &settings, key, value)?;
            let variable = settings
                .get_arguments()
                .find(|arg| arg.get_id() == key)
                .and_then(|arg| arg.get_env());
            if variable.is_none_or(|name| std::env::var_os(name).is_none()) {
                flags.push(flag);
            }
        }
        Ok(flags)
    }

    /// Refuses a `HUSHNET_` variable that is no setting: a misspelt limit is no limit.
    ///
    /// # Errors
    /// [`ConfigError::UnknownVariable`] with the known ones.
    pub fn check_variables(names: impl Iterator<Item = OsString>) -> Result<(), ConfigError> {
        let settings = settings();
        let known: Vec<&OsStr> = settings
            .get_arguments()
            .filter_map(clap::Arg::get_env)
            .collect();
        for name in names.filter(|name| name.to_string_lossy().starts_with("HUSHNET_")) {
            if !known.contains(&name.as_os_str()) {
                return Err(ConfigError::UnknownVariable {
                    name: name.to_string_lossy().into_owned(),
                    known: known
                        .iter()
                        .map(|k| k.to_string_lossy())
                        .collect::<Vec<_>>()
                        .join(", "),
                });
            }
        }
        Ok(())
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

/// A command line that knows nothing but the settings.
fn settings() -> Command {
    Config::augment_args(Command::new("settings").no_binary_name(false))
}

fn without_environment(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset))
}

/// The flag that a line of the file stands for, checked on its own.
fn flag_of_entry(
    path: &Path,
    settings: &Command,
    key: &str,
    value: &toml::Value,
) -> Result<OsString, ConfigError> {
    let names = || {
        settings
            .get_arguments()
            .map(|arg| arg.get_id().as_str())
            .filter(|id| *id != "config")
    };
    if !names().any(|name| name == key) {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.to_owned(),
            known,
        });
    }
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(truth) => truth.to_string(),
        _ => {
            return Err(ConfigError::NotScalar {
                path: path.to_owned(),
                key: key.to_owned(),
            });
        }
    };
    let flag = OsString::from(format!("--{}={text}", key.replace('_', "-")));
    without_environment(settings.clone())
        .try_get_matches_from([OsString::new(), flag.clone()])
        .map_err(|error| ConfigError::BadValue {
            path: path.to_owned(),
            cause: first_paragraph(&error.to_string()),
        })?;
    Ok(flag)
}

/// clap's error without its usage lines.
fn first_paragraph(error: &str) -> String {
    error
        .split("\n\n")
        .next()
        .unwrap_or(error)
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Vec<OsString>, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hushnet.toml");
        std::fs::write(&path, text).unwrap();
        Config::flags_of_file(&path)
    }

    #[test]
    fn the_defaults_are_within_their_bounds() {
        let config = Config::default();
        assert_eq!(config.user_channel_capacity, 16);
        assert_eq!(config.ping_interval(), Duration::from_secs(25));
        config.check_exposure().unwrap();
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let printed = Config::default().to_toml();
        let flags = file(&printed).unwrap();
        assert_eq!(flags.len(), printed.lines().count(), "{printed}");
    }

    #[test]
    fn a_file_s_mistakes_are_named_with_what_is_allowed() {
        for (text, said) in [
            (
                "user_chanel_capacity = 16",
                "unknown key user_chanel_capacity; known: database_url, ",
            ),
            ("user_channel_capacity = 0", "0 is not in 1..=4096"),
            (
                "listen = 'nowhere'",
                "invalid value 'nowhere' for '--listen <ADDRESS:PORT>'",
            ),
            ("log_format = 'xml'", "[possible values: text, json]"),
            (
                "listen = ['127.0.0.1:1']",
                "listen takes a text, a number or true or false",
            ),
            ("listen = ", "is not TOML"),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(
                error.contains("hushnet.toml") && error.contains(said),
                "{error}"
            );
        }
    }

    #[test]
    fn a_misspelt_variable_is_refused() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(OsString::from)
                .collect::<Vec<_>>()
                .into_iter()
        };
        Config::check_variables(names(&["PATH", "HUSHNET_LISTEN"])).unwrap();
        let error = Config::check_variables(names(&["HUSHNET_LISTN"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("HUSHNET_LISTN") && error.contains("HUSHNET_LISTEN"),
            "{error}"
        );
    }

    #[test]
    fn only_loopback_is_served_without_being_told_twice() {
        let mut config = Config {
            listen: "0.0.0.0:8080".parse().unwrap(),
            ..Config::default()
        };
        assert!(
            config
                .check_exposure()
                .unwrap_err()
                .to_string()
                .contains("--insecure-no-auth")
        );
        config.identity.auth = AuthMode::Device;
        config.check_exposure().unwrap();
        config.identity.auth = AuthMode::None;
        config.identity.insecure_no_auth = true;
        config.check_exposure().unwrap();
    }
}
