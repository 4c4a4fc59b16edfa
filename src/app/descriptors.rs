//! How the descriptors of open files are shared out between clients and the process itself.
//!
//! Each connection of a client takes one. The service needs others for its connections to the database, which it
//! makes anew after each loss: clients must not have taken them meanwhile. So fewer connections are accepted than
//! there are descriptors, WebSockets and others together, and what is kept back is a sum of bounds.

use crate::config::Config;
use crate::edge::REQUEST_CONNECTIONS_MAX;

use super::database_connections::database_connections_max;
use super::error::RunError;

/// What the process opens that is neither a client's connection nor one to the database: the standard streams, the
/// event loop, the listening sockets, the private PostgreSQL of `run`; for moments the certificate, the published
/// keys, a name that is resolved, and the files of `/proc` that the metrics are read from.
const PROCESS_DESCRIPTORS: u64 = 32;
/// When all connections to the database are renewed, those of before may still wait for the end of their query.
const DATABASE_GENERATIONS: u64 = 2;
/// One of so many connections is for requests other than WebSockets, where there are few descriptors.
const REQUEST_SHARE: u64 = 4;

/// How many connections the limit of open files admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// WebSockets that may be open: `connections_max`, or fewer.
    pub sockets: usize,
    /// Other connections that may be open, on each address that is served.
    pub requests: usize,
    /// Whether `sockets` is less than `connections_max`.
    pub is_short: bool,
}

impl Descriptors {
    /// The limit of open files under which all connections of these settings fit.
    #[must_use]
    pub fn wanted(config: &Config) -> u64 {
        let requests = listeners(config) * REQUEST_CONNECTIONS_MAX as u64;
        reserved(config) + u64::from(config.limits.connections_max) + requests
    }

    /// What this limit of open files admits under these settings.
    ///
    /// # Errors
    /// [`RunError::NoDescriptors`] when nothing is left for clients.
    pub fn of(config: &Config, limit: u64) -> Result<Self, RunError> {
        let (connections_max, listeners) =
            (u64::from(config.limits.connections_max), listeners(config));
        let reserved = reserved(config);
        let left = limit.saturating_sub(reserved);
        let share = left
            .saturating_sub(connections_max)
            .max(left / REQUEST_SHARE);
        let requests = (share / listeners).min(REQUEST_CONNECTIONS_MAX as u64);
        let sockets = connections_max.min(left - requests * listeners);
        if requests == 0 {
            return Err(RunError::NoDescriptors {
                limit,
                reserved,
                wanted: Self::wanted(config),
            });
        }
        Ok(Self {
            sockets: usize::try_from(sockets).unwrap_or(usize::MAX),
            requests: usize::try_from(requests).unwrap_or(usize::MAX),
            is_short: sockets < connections_max,
        })
    }

    /// What this process's limit of open files admits.
    pub(super) fn of_process(config: &Config) -> Result<Self, RunError> {
        let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
        Self::of(config, limit)
    }
}

/// The descriptors that no client is given.
fn reserved(config: &Config) -> u64 {
    PROCESS_DESCRIPTORS + DATABASE_GENERATIONS * u64::from(database_connections_max(config))
}

/// The addresses that are served.
fn listeners(config: &Config) -> u64 {
    1 + u64::from(config.edge.metrics_listen.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(connections_max: u32, has_metrics_listen: bool) -> Config {
        let mut config = Config::default();
        config.limits.connections_max = connections_max;
        config.edge.metrics_listen = has_metrics_listen.then(|| "127.0.0.1:0".parse().unwrap());
        config
    }

    #[test]
    fn the_wanted_limit_admits_every_connection() {
        for has_metrics_listen in [false, true] {
            for connections_max in [1, 10, 1_000, 10_000_000] {
                let config = config(connections_max, has_metrics_listen);
                let wanted = Descriptors::wanted(&config);
                let admitted = Descriptors::of(&config, wanted).unwrap();
                assert_eq!(admitted.sockets, connections_max as usize);
                assert_eq!(admitted.requests, REQUEST_CONNECTIONS_MAX);
                assert!(!admitted.is_short);
            }
        }
    }

    #[test]
    fn whatever_the_limit_the_reserve_is_kept() {
        for has_metrics_listen in [false, true] {
            let config = config(1_000, has_metrics_listen);
            let (listeners, reserved) = (listeners(&config), reserved(&config));
            for limit in 0..3_000 {
                let Ok(admitted) = Descriptors::of(&config, limit) else {
                    assert!(limit < reserved + listeners * REQUEST_SHARE, "{limit}");
                    continue;
                };
                assert!(admitted.sockets > 0 && admitted.requests > 0, "{limit}");
                let accepted = admitted.sockets as u64 + listeners * admitted.requests as u64;
                assert!(accepted + reserved <= limit, "{limit}: {admitted:?}");
                assert_eq!(admitted.is_short, admitted.sockets < 1_000, "{limit}");
            }
        }
    }

    #[test]
    fn more_connections_to_the_database_leave_fewer_to_clients() {
        let mut config = config(1_000, false);
        let before = Descriptors::of(&config, 500).unwrap();
        config.database_pool_size += 10;
        assert!(Descriptors::of(&config, 500).unwrap().sockets < before.sockets);
    }
}
