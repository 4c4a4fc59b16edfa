//! The handle of a running private PostgreSQL.

use std::fs;
use std::path::Path;

use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::address;
use crate::error::ClusterError;
use crate::layout::Layout;
use crate::lock::{self, ServiceLock};
use crate::postmaster::Postmaster;
use crate::socket;
use crate::startup::{self, Started};
use crate::supervisor::{FAST_SHUTDOWN_DEADLINE, IMMEDIATE_SHUTDOWN_DEADLINE};
use crate::wait::until;

#[cfg(test)]
mod tests;

/// A running private cluster. Dropping it stops the server in the background; [`Cluster::stop`]
/// also waits for the server's end. Not bound to a runtime, so that tests can share one in a static.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    server: Started,
    /// The last field, so that it is dropped after the supervisor was asked to stop the server.
    _service_lock: ServiceLock,
}

impl Cluster {
    /// Starts the cluster in `directory`, which is created if it does not exist. If a service that
    /// has ended left its server running there, that server is used.
    pub async fn start(directory: &Path) -> Result<Self, ClusterError> {
        Self::start_with(directory, &[]).await
    }

    /// The same with settings of PostgreSQL, as pairs of name and value. With `fsync` `off`, the
    /// data directory is also created without flushing it. A server that runs already keeps the
    /// settings that it was started with.
    pub async fn start_with(
        directory: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Self, ClusterError> {
        fs::create_dir_all(directory).map_err(ClusterError::io("create", directory))?;
        let directory =
            fs::canonicalize(directory).map_err(ClusterError::io("resolve", directory))?;
        let service_lock = ServiceLock::acquire(&directory)?;
        let supervisor_lock = lock::acquire_supervisor_lock(&directory).await?;
        let layout = Layout::find(directory).await?;
        let server = match startup::find_running(&layout).await? {
            Some(found) => startup::take_over(&layout, found, supervisor_lock)?,
            None => startup::launch(&layout, settings, supervisor_lock).await?,
        };
        Ok(Self {
            layout,
            server,
            _service_lock: service_lock,
        })
    }

    /// The address of a database of the cluster that runs in `directory`, whichever process started
    /// it. `None` if no cluster runs there, or if this user may not use it.
    #[must_use]
    pub fn locate(directory: &Path, database: &str) -> Option<String> {
        let data = fs::canonicalize(directory.join("data")).ok()?;
        let found = Postmaster::read(&data)?;
        (found.ready && found.accepts()).then(|| address::url(&found.socket, found.port, database))
    }

    /// The address of `database`, as sqlx and libpq (psql) both read it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        address::url(&self.server.socket, self.server.port, database)
    }

    /// Creates `database` if it does not exist.
    pub async fn create_database(&self, name: &str) -> Result<(), ClusterError> {
        self.try_create_database(name)
            .await
            .map_err(|source| ClusterError::Database {
                name: name.to_owned(),
                source,
            })
    }

    async fn try_create_database(&self, name: &str) -> Result<(), sqlx::Error> {
        // Without a password, sqlx would read ~/.pgpass and log the lines that it cannot read.
        let url = self.url("postgres") + "&password=";
        let mut connection = PgConnection::connect(&url).await?;
        let exists =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(name);
        if !exists.fetch_one(&mut connection).await? {
            // A name cannot be a parameter. template0 allows no connections, so that none is in the
            // way of copying it.
            let statement = format!(
                r#"CREATE DATABASE "{}" TEMPLATE template0"#,
                name.replace('"', r#""""#)
            );
            let created = sqlx::raw_sql(AssertSqlSafe(statement));
            match created.execute(&mut connection).await {
                Err(error) if !exists_already(&error) => return Err(error),
                _ => {}
            }
        }
        connection.close().await
    }

    /// Stops the server and waits for its end. Asks for a fast shutdown, and for an immediate one if
    /// the fast one takes too long.
    pub async fn stop(mut self) -> Result<(), ClusterError> {
        for (signal, deadline) in [
            ("INT", FAST_SHUTDOWN_DEADLINE),
            ("QUIT", IMMEDIATE_SHUTDOWN_DEADLINE),
        ] {
            self.server.supervisor.send(signal);
            let (supervisor, data) = (&mut self.server.supervisor, &self.layout.data);
            let is_down = || supervisor.has_exited() || !data.join("postmaster.pid").exists();
            if until(deadline, is_down).await {
                break;
            }
        }
        let supervisor = &mut self.server.supervisor;
        supervisor.release();
        if !until(IMMEDIATE_SHUTDOWN_DEADLINE, || supervisor.has_exited()).await {
            return Err(ClusterError::NotStopped {
                data: self.layout.data,
                after: FAST_SHUTDOWN_DEADLINE + 2 * IMMEDIATE_SHUTDOWN_DEADLINE,
            });
        }
        socket::remove_short_directory(&self.layout, &self.server.socket);
        Ok(())
    }
}

/// Whether another process has created the database meanwhile: `duplicate_database`, or a unique
/// violation in the catalog.
fn exists_already(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("42P04" | "23505"))
}
