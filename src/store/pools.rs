//! The database connections, and what each is told when it begins.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// A query waits this long for a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Database connections for the service's own work.
const OWN_CONNECTIONS_MAX: u32 = 3;

/// Sent on each new connection. The planner's guesses about a log that grows faster than it is analysed
/// are far off: JIT would then compile for hundreds of milliseconds, and a scan go through all of a day,
/// for what the index has in less than one. And a barrier's commit must reach the disk, for what it has
/// seen is given out as seen: after a crash PostgreSQL would hand out again the numbers of transactions
/// that have left no trace.
const SESSION: &str = "SET jit = off;
    SET enable_seqscan = off;
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Two, so that nothing that clients ask for keeps the service from its own work.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    pub(super) own: PgPool,
    pub(super) requests: PgPool,
}

impl Pools {
    pub(super) fn new(options: &PgConnectOptions, requests_max: u32) -> Self {
        Self {
            own: connect(options, OWN_CONNECTIONS_MAX),
            requests: connect(options, requests_max),
        }
    }

    pub(super) async fn close(self) {
        tokio::join!(self.own.close(), self.requests.close());
    }
}

fn connect(options: &PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(SESSION).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options.clone())
}
