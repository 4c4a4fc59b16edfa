//! The settings: declared once, read from flags, variables and a TOML file.

mod bounds;
mod bus;
mod channels;
mod database;
#[cfg(test)]
mod documented;
mod edge;
mod error;
mod file;
mod identity;
mod ingest;
mod keys_url;
mod limits;
mod origins;
mod service_links;
mod settings;

pub use self::bus::{BusAddress, NodeName, NodeSettings, NotANodeName};
pub use self::channels::ChannelNames;
pub use self::database::{DatabaseUrl, DatabaseUrlParser, MESSAGE_BYTES_MAX, NotUsed, is_variable};
pub use self::edge::EdgeSettings;
pub use self::error::ConfigError;
pub use self::file::{check_variables, flags_of_file};
pub use self::identity::{AuthMode, IdentitySettings, JwtAlgorithm};
pub use self::ingest::{Ingest, UnknownIngest};
pub use self::keys_url::KeysUrl;
pub use self::limits::{LimitSettings, Networks};
pub use self::origins::{Origins, is_loopback_host};
pub use self::settings::{Config, LogFormat};
