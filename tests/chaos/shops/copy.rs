//! A client that keeps a copy of its user's rows by events, and judges each event by what it has.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use hushnet_testkit::client::{self, Client, SUBPROTOCOL_HEADER};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::schemas::Schema;
use crate::settings;

/// After the last commit, until the copy is what the table has.
const CALM_MAX: Duration = Duration::from_secs(90);

/// What is done meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing that a client is reset for: each event fits.
    Exact,
    /// An event that does not fit is followed by a reset.
    WithGaps,
    /// Nobody writes any more.
    Calm,
}

/// What a user has, by key.
type Rows = BTreeMap<String, Value>;

/// The cursor, and a row's key and values as JSON.
type Found = (String, Option<String>, Option<String>);

/// A client's copy of its user's rows.
#[derive(Debug)]
pub struct Copy {
    schema: &'static Schema,
    user: &'static str,
    service: SocketAddr,
    database: PgConnectOptions,
    random: StdRng,
    rows: Rows,
    /// Where the events go on; `None` before the rows have been fetched.
    cursor: Option<String>,
    /// The events that it was sent since it fetched the rows.
    ids: HashSet<i64>,
    events: usize,
    /// An event that did not fit, since the rows were fetched.
    misfit: Option<String>,
    phase: watch::Receiver<Phase>,
}

impl Copy {
    pub fn new(
        schema: &'static Schema,
        number: usize,
        service: SocketAddr,
        database: PgConnectOptions,
        phase: watch::Receiver<Phase>,
    ) -> Self {
        Self {
            schema,
            user: schema.users[number % schema.users.len()],
            service,
            database,
            random: StdRng::seed_from_u64(settings::seed() ^ ((number as u64) << 32)),
            rows: Rows::new(),
            cursor: None,
            ids: HashSet::new(),
            events: 0,
            misfit: None,
            phase,
        }
    }

    /// Keeps the copy until nobody writes any more and it is what the table has. Returns how many events it took.
    pub async fn keep(mut self) -> usize {
        let mut give_up = None;
        loop {
            if self.is_calm() {
                let (_, rows) = self.fetch().await;
                if self.cursor.is_some() && rows == self.rows && self.misfit.is_none() {
                    return self.events;
                }
                let give_up = *give_up.get_or_insert(Instant::now() + CALM_MAX);
                assert!(
                    Instant::now() < give_up,
                    "{:?}; {} has {:?} of {}, and the table {rows:?}",
                    self.misfit,
                    self.user,
                    self.rows,
                    self.schema.table
                );
            }
            self.connection().await;
        }
    }

    fn is_calm(&self) -> bool {
        *self.phase.borrow() == Phase::Calm
    }

    /// The rows, and the cursor of their snapshot.
    async fn fetch(&self) -> (String, Rows) {
        let query = format!(
            "SELECT realtime.cursor(), key, row FROM (VALUES (1)) AS one LEFT JOIN ({}) AS state ON true",
            self.schema.state
        );
        loop {
            if let Ok(mut connection) = self.database.connect().await {
                let asked = sqlx::query_as(AssertSqlSafe(query.as_str())).bind(self.user);
                let found: Result<Vec<Found>, _> = asked.fetch_all(&mut connection).await;
                if let Ok(found) = found {
                    let cursor = found[0].0.clone();
                    let rows = found.into_iter().filter_map(|(_, key, row)| {
                        let key: Value = serde_json::from_str(&key?).unwrap();
                        Some((key.to_string(), serde_json::from_str(&row?).unwrap()))
                    });
                    return (cursor, rows.collect());
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// One connection, until it is lost or given up.
    async fn connection(&mut self) {
        let since = if let Some(cursor) = &self.cursor {
            cursor.clone()
        } else {
            let (cursor, rows) = self.fetch().await;
            self.rows = rows;
            self.ids.clear();
            self.misfit = None;
            self.cursor = Some(cursor.clone());
            cursor
        };
        let user = utf8_percent_encode(self.user, NON_ALPHANUMERIC);
        let url = format!("ws://{}/ws?user_id={user}&since={since}", self.service);
        let request = client::request(&url, &[(SUBPROTOCOL_HEADER, "hushnet.v1")]);
        let connecting = Client::connect(request, None, |_| {});
        let Ok(Ok((mut socket, _))) = timeout(Duration::from_secs(5), connecting).await else {
            sleep(Duration::from_millis(100)).await;
            return;
        };
        let leaves = Duration::from_millis(self.random.random_range(200..3_000));
        let leaves = Instant::now() + leaves;
        while Instant::now() < leaves || self.is_calm() {
            let quiet = Duration::from_millis(500);
            match timeout(quiet, self.frame(&mut socket)).await {
                Ok(false) => return,
                Err(_) if self.is_calm() => return,
                Ok(true) | Err(_) => {}
            }
        }
    }

    /// Takes a frame. Returns false where the connection is over.
    async fn frame(&mut self, socket: &mut Client) -> bool {
        let Ok(text) = socket.try_next_text().await else {
            return false;
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        match frame["type"].as_str().unwrap() {
            "reset" => {
                self.cursor = None;
                return false;
            }
            "goaway" => return false,
            "hello" => return true,
            _ => {}
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        if frame.get("op").is_some() && self.ids.insert(frame["id"].as_i64().unwrap()) {
            self.take(&frame);
            self.events += 1;
        }
        true
    }

    fn take(&mut self, event: &Value) {
        assert_eq!(event["user_id"], self.user, "somebody else's: {event}");
        let key: Vec<_> = event["key"].as_object().unwrap().values().collect();
        let key = serde_json::to_string(&key).unwrap();
        let had = self.rows.remove(&key);
        let fits = match event["op"].as_str().unwrap() {
            "insert" => {
                self.rows.insert(key, event["row"].clone());
                had.is_none()
            }
            "update" => {
                let row = event.get("row").cloned().or_else(|| had.clone());
                let mut row = row.unwrap_or_else(|| json!({}));
                for (name, value) in event["changed"].as_object().into_iter().flatten() {
                    row[name] = value.clone();
                }
                self.rows.insert(key, row);
                had.is_some()
            }
            _ => had.is_some(),
        };
        if !fits {
            let misfit = format!("{event}, and {} had {had:?}", self.user);
            assert!(*self.phase.borrow() != Phase::Exact, "{misfit}");
            self.misfit.get_or_insert(misfit);
        }
    }
}
