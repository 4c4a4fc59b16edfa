//! The nodes of one database, as each writes its own row, and who of them was last elected.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

/// A node whose row is older does not count. `realtime.announce_node` has the same.
const LIVE_MAX: Duration = Duration::from_secs(6);

/// What a node is to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// It reads the log and publishes events.
    Leader,
    /// It takes events from the bus.
    Follower,
    /// It reads the log for itself.
    Reader,
}

/// A node's own row.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// Its id, another one in each process.
    pub node: Uuid,
    /// Its name.
    pub name: String,
    /// The newest format of messages that it reads.
    pub batch_version: u8,
    /// What it is to the log.
    pub role: Role,
    /// The run whose barriers it receives, if it receives any.
    pub run: Option<u64>,
    /// Whether it has received one since it last wrote its row.
    pub received: bool,
    /// The shards that it takes from the bus.
    pub shards: u32,
    /// Its connections.
    pub connections: u32,
    /// How long ago the last barrier has come.
    pub lag: Duration,
}

/// A node's row as another node reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// Its id.
    pub node: Uuid,
    /// Its name.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// The newest format of messages that it reads.
    pub batch_version: i32,
    /// What it is to the log.
    pub role: Role,
    /// The run whose barrier it has last received over the bus.
    pub run: Option<u64>,
    /// How long ago that was.
    pub received_age: Option<Duration>,
    /// The shards that it takes from the bus.
    pub shards: i32,
    /// Its connections.
    pub connections: i32,
    /// How long before it wrote this the last barrier had come: events come.
    pub lag: Duration,
    /// How long ago it has written this.
    pub seen_age: Duration,
}

impl NodeRow {
    /// Whether the node has written its row lately. It does so every two seconds.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.seen_age <= LIVE_MAX
    }

    /// The term that the node leads or follows in, if it is the present one.
    #[must_use]
    pub fn term(&self, leader: Option<&Leader>) -> Option<u64> {
        let leader = leader?;
        let is_present = match self.role {
            Role::Leader => leader.node == self.node,
            Role::Follower => Some(leader.run) == self.run,
            Role::Reader => false,
        };
        is_present.then_some(leader.term)
    }
}

/// What [`super::Log::announce`] does, on this pool.
pub(super) async fn announce(
    pool: &PgPool,
    state: &NodeState,
) -> Result<Option<Uuid>, sqlx::Error> {
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    sqlx::query_scalar("SELECT realtime.announce_node($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
        .bind(state.node)
        .bind(&state.name)
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(i32::from(state.batch_version))
        .bind(<&str>::from(state.role))
        .bind(state.run.map(u64::cast_signed))
        .bind(state.received)
        .bind(count(state.shards))
        .bind(count(state.connections))
        .bind(i32::try_from(state.lag.as_millis()).unwrap_or(i32::MAX))
        .fetch_one(pool)
        .await
}

/// What [`super::Log::nodes`] does, on this pool.
pub(super) async fn all(pool: &PgPool) -> Result<Vec<NodeRow>, sqlx::Error> {
    let statement = "SELECT node, name, version, batch_version, role, run, received_age, shards, connections, lag_ms,
                seen_age
         FROM realtime.node_states()";
    let rows = sqlx::query(statement).fetch_all(pool).await?;
    rows.iter().map(of_row).collect()
}

fn of_row(row: &PgRow) -> Result<NodeRow, sqlx::Error> {
    let role: String = row.try_get(4)?;
    let run: Option<i64> = row.try_get(5)?;
    let received: Option<f64> = row.try_get(6)?;
    // The clock may have gone back.
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(NodeRow {
        node: row.try_get(0)?,
        name: row.try_get(1)?,
        version: row.try_get(2)?,
        batch_version: row.try_get(3)?,
        role: role
            .parse()
            .map_err(|error: strum::ParseError| sqlx::Error::Decode(error.into()))?,
        run: run.map(i64::cast_unsigned),
        received_age: received.map(seconds),
        shards: row.try_get(7)?,
        connections: row.try_get(8)?,
        lag: Duration::from_millis(u64::try_from(row.try_get::<i32, _>(9)?).unwrap_or_default()),
        seen_age: seconds(row.try_get(10)?),
    })
}

/// What [`super::Log::leave`] does, on this pool.
pub(super) async fn leave(pool: &PgPool, node: Uuid) -> Result<(), sqlx::Error> {
    let leave = sqlx::query("SELECT realtime.leave_node($1)").bind(node);
    leave.execute(pool).await.map(drop)
}

/// The node that was last elected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// How many elections there have been.
    pub term: u64,
    /// The number of its run.
    pub run: u64,
    /// Its id.
    pub node: Uuid,
    /// Its name.
    pub name: String,
}

/// What [`super::Log::leader`] does, on this pool.
pub(super) async fn leader(pool: &PgPool) -> Result<Option<Leader>, sqlx::Error> {
    let statement = sqlx::query("SELECT term, run, node, name FROM realtime.leader_now()");
    let Some(row) = statement.fetch_optional(pool).await? else {
        return Ok(None);
    };
    let (term, run): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(Leader {
        term: term.cast_unsigned(),
        run: run.cast_unsigned(),
        node: row.try_get(2)?,
        name: row.try_get(3)?,
    }))
}

/// What [`super::Log::ask_to_step_down`] does, on this pool.
pub(super) async fn ask_to_step_down(pool: &PgPool, run: u64) -> Result<bool, sqlx::Error> {
    let ask = sqlx::query_scalar("SELECT realtime.ask_to_step_down($1)");
    ask.bind(run.cast_signed()).fetch_one(pool).await
}
