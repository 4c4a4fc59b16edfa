//! How many connections to the database a server has at most.

use crate::config::{AuthMode, Config};
use crate::store::{IDENTITY_CONNECTIONS_MAX, SERVICE_CONNECTIONS_MAX, STREAM_CONNECTIONS_MAX};

/// The sum of what each of its pools and each of its single connections is bounded by. While all connections are
/// replaced after a loss of the database, PostgreSQL may still have some of those of before.
#[must_use]
pub fn database_connections_max(config: &Config) -> u32 {
    let of_identity = match config.identity.auth {
        AuthMode::None => 0,
        AuthMode::Jwt | AuthMode::Device | AuthMode::JwtOrDevice => IDENTITY_CONNECTIONS_MAX,
    };
    let of_stream = match config.replication_url {
        Some(_) => STREAM_CONNECTIONS_MAX,
        None => 0,
    };
    let of_leader = u32::from(config.nodes.bus.url().is_some());
    config.database_pool_size + of_identity + of_stream + of_leader + SERVICE_CONNECTIONS_MAX
}
