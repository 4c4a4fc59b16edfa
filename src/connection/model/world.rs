//! The world of the model: the database, the service's parts, and clients.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::watch;
use uuid::Uuid;

use super::database::{Database, Notified, Row, cursor};
use crate::connection::position::{Position, Replayed, Source, Verdict};
use crate::delivery::{Bounds, Feed, Found, Hub, ReplayBuffer, Router, Subscription};
use crate::metrics::Metrics;
use crate::protocol::{Cursor, Notification, Signal, Snapshot};

const USERS: usize = 2;
/// Rows in one page of the made-up log.
const PAGE: usize = 3;

/// One connection, which does what `Replay` and `Connection` do, with a list in the place of the socket.
struct Connection {
    subscription: Subscription,
    position: Position,
    /// The ids that were queued to this socket, in order.
    queued: Vec<i64>,
    /// A replay from the log that is being sent, and the pages that are left.
    paging: Option<(Replayed, Snapshot, VecDeque<Row>)>,
}

/// One client of a user, over all of its connections.
struct Client {
    user: usize,
    connection: Option<Connection>,
    /// The cursor that it keeps, and where its history begins.
    cursor: Option<Cursor>,
    began: Option<Snapshot>,
    /// The ids that it has received, in the order of their first arrival.
    received: Vec<i64>,
    known: HashSet<i64>,
}

pub(super) struct World {
    seed: u64,
    users: [Uuid; USERS],
    database: Database,
    router: Router,
    buffer: ReplayBuffer,
    hub: Hub,
    feed: watch::Receiver<Feed>,
    clients: Vec<Client>,
    now: Instant,
}

impl World {
    pub(super) fn new(seed: u64, rng: &mut StdRng) -> Self {
        let now = Instant::now();
        let hub = Hub::new(rng.random_range(1..=4));
        let bounds = Bounds {
            bytes_max: if rng.random_bool(0.5) {
                16_384
            } else {
                1 << 20
            },
            age_max: Duration::from_secs(rng.random_range(2..30)),
        };
        let buffer = ReplayBuffer::new(bounds, now);
        let metrics = Arc::new(Metrics::new());
        let (mut router, feed) = Router::new(hub.clone(), buffer.clone(), metrics, now);
        let database = Database::default();
        router.advance(cursor(database.snapshot(), false), now);
        let clients = (0..4).map(|n| Client {
            user: n % USERS,
            connection: None,
            cursor: None,
            began: None,
            received: Vec::new(),
            known: HashSet::new(),
        });
        Self {
            seed,
            users: [Uuid::from_u128(1), Uuid::from_u128(2)],
            database,
            router,
            buffer,
            hub,
            feed,
            clients: clients.collect(),
            now,
        }
    }

    /// The listener takes what was notified.
    fn listen(&mut self, notifications: usize) {
        for _ in 0..notifications {
            match self.database.channel.pop_front() {
                None => return,
                Some(Notified::Row(row)) => self.route(&row),
                Some(Notified::Barrier(snapshot)) => {
                    let barrier = cursor(snapshot, false);
                    self.router.complete_barrier(barrier, self.now);
                }
            }
        }
    }

    fn route(&mut self, row: &Row) {
        self.router.route(Notification::parse(&row.text).unwrap());
    }

    /// The listener's connection is lost with everything on it, and the log is read from the durable position.
    fn lose_the_listener(&mut self) {
        self.router.away();
        self.database.channel.clear();
        let from = self.router.durable_position().unwrap().snapshot.clone();
        let until = self.database.snapshot();
        for row in self.database.read(&from, &until) {
            self.route(&row);
        }
        self.router.advance(cursor(until, false), self.now);
    }

    fn connect(&mut self, n: usize, since: Option<Cursor>) {
        let client = &mut self.clients[n];
        let user_id = self.users[client.user];
        let subscribed_after = self.buffer.last_sequence();
        let mut connection = Connection {
            subscription: self.hub.subscribe(user_id),
            position: Position::new(subscribed_after),
            queued: Vec::new(),
            paging: None,
        };
        let present = self.feed.borrow().cursor().cloned();
        connection.position.begin_at(present.clone());
        let Some(since) = since else {
            let present = present.unwrap();
            // The client reads its state after its first frame.
            client.began = Some(self.database.snapshot());
            client.cursor = Some((*present).clone());
            connection.position.end_replay();
            client.connection = Some(connection);
            return;
        };
        let since = Arc::new(since);
        if let Some(found) = self.buffer.since(user_id, &since) {
            connection.position.resume_from_buffer(since);
            client.connection = Some(connection);
            self.send_from_buffer(n, found);
            let client = &mut self.clients[n];
            let connection = client.connection.as_mut().unwrap();
            connection.position.advance(present.unwrap());
            connection.position.end_replay();
            self.give_cursor(n);
        } else {
            client.connection = Some(connection);
            self.begin_paging(n, since, true);
        }
    }

    fn send_from_buffer(&mut self, n: usize, mut found: Found) {
        let user_id = self.users[self.clients[n].user];
        loop {
            for signal in found.signals {
                self.take(n, &signal, Source::Buffer);
            }
            if !found.more {
                return;
            }
            let taken = self.clients[n]
                .connection
                .as_ref()
                .unwrap()
                .position
                .taken();
            found = self.buffer.after(user_id, taken).unwrap();
        }
    }

    fn begin_paging(&mut self, n: usize, from: Arc<Cursor>, resumes: bool) {
        let until = self.database.snapshot();
        let user = self.clients[n].user;
        let rows = self.database.read(&from.snapshot, &until);
        let connection = self.clients[n].connection.as_mut().unwrap();
        // What was sent since that cursor is sent once more: the client drops it by its id.
        let is_known = |id: &i64| !rows.iter().any(|row| row.id == *id);
        connection.queued.retain(is_known);
        let kept = match connection.position.client_cursor() {
            Some(kept) if !resumes => Arc::clone(kept),
            _ => from,
        };
        let rows = rows.into_iter().filter(|row| row.user == user).collect();
        connection.paging = Some((Replayed::new(kept, until.clone()), until, rows));
    }

    /// Sends the next page of a replay from the log.
    fn page(&mut self, n: usize) {
        let Some(connection) = &mut self.clients[n].connection else {
            return;
        };
        let Some((mut replayed, until, mut rows)) = connection.paging.take() else {
            return;
        };
        replayed.begin_page(PAGE);
        let with_cursor = connection.position.gives_cursors();
        let kept = Arc::clone(replayed.kept());
        let mut sent = Vec::new();
        for row in rows.drain(..PAGE.min(rows.len())) {
            replayed.add(Some(row.id));
            sent.push(row.id);
        }
        if rows.is_empty() {
            let present = Arc::new(cursor(until, false).for_clients());
            connection.position.resume_from_log(replayed, present);
            connection.position.end_replay();
        } else {
            connection.paging = Some((replayed, until, rows));
        }
        for id in sent {
            self.queue(n, id, with_cursor.then_some(&kept));
        }
    }

    /// The client is sent an event.
    fn queue(&mut self, n: usize, id: i64, cursor: Option<&Arc<Cursor>>) {
        let seed = self.seed;
        let client = &mut self.clients[n];
        let connection = client.connection.as_mut().unwrap();
        assert!(
            !connection.queued.contains(&id),
            "seed {seed}: client {n} is sent {id} twice on one connection"
        );
        connection.queued.push(id);
        if client.known.insert(id) {
            client.received.push(id);
        }
        if let Some(cursor) = cursor {
            client.cursor = Some((**cursor).clone());
            self.check_cursor(n);
        }
    }

    fn take(&mut self, n: usize, signal: &Signal, source: Source) {
        let connection = self.clients[n].connection.as_mut().unwrap();
        let verdict = connection.position.take(signal, source);
        if let (Verdict::Send { with_cursor }, Signal::Event(event)) = (verdict, signal) {
            let cursor = event.cursor.as_ref().filter(|_| with_cursor);
            self.queue(n, event.id.unwrap(), cursor);
        }
    }

    /// The client takes what its subscription has brought.
    fn receive(&mut self, n: usize, most: usize) {
        for _ in 0..most {
            let Some(connection) = &mut self.clients[n].connection else {
                return;
            };
            if connection.paging.is_some() {
                return;
            }
            match connection.subscription.receiver().try_recv() {
                Ok(signal) => self.take(n, &signal, Source::Live),
                Err(TryRecvError::Lagged(_)) => self.repair(n),
                Err(_) => return,
            }
        }
    }

    fn repair(&mut self, n: usize) {
        let user_id = self.users[self.clients[n].user];
        let connection = self.clients[n].connection.as_mut().unwrap();
        connection.position.begin_replay();
        let after = connection.position.repair_after();
        if let Some(found) = self.buffer.after(user_id, after) {
            self.send_from_buffer(n, found);
            let connection = self.clients[n].connection.as_mut().unwrap();
            connection.position.end_replay();
        } else {
            let from = connection.position.repair_from().cloned().unwrap();
            self.begin_paging(n, from, false);
        }
    }

    /// The heartbeat, or the end of a replay: the client is given the cursor that it may keep.
    fn heartbeat(&mut self, n: usize) {
        let feed = self.feed.borrow().cursor().cloned();
        let Some(connection) = &mut self.clients[n].connection else {
            return;
        };
        if connection.position.is_replaying() {
            return;
        }
        if let Some(cursor) = feed
            && connection.subscription.receiver().is_empty()
        {
            connection.position.advance(cursor);
        }
        self.give_cursor(n);
    }

    fn give_cursor(&mut self, n: usize) {
        let client = &mut self.clients[n];
        let connection = client.connection.as_ref().unwrap();
        client.cursor = connection.position.client_cursor().map(|c| (**c).clone());
        self.check_cursor(n);
    }

    /// What the client's cursor sees, the client has.
    fn check_cursor(&self, n: usize) {
        let client = &self.clients[n];
        let (Some(began), Some(cursor)) = (&client.began, &client.cursor) else {
            return;
        };
        for row in self.database.read(began, &cursor.snapshot) {
            assert!(
                row.user != client.user || client.known.contains(&row.id),
                "seed {}: client {n} may keep {cursor}, which sees {}, and was not sent it",
                self.seed,
                row.id
            );
        }
    }

    fn disconnect(&mut self, n: usize) {
        self.clients[n].connection = None;
    }

    pub(super) fn step(&mut self, rng: &mut StdRng) {
        let n = rng.random_range(0..self.clients.len());
        let running = self.database.running.len();
        match rng.random_range(0..100) {
            0..12 if running < 5 => self.database.begin(),
            0..35 if running > 0 => {
                let user = rng.random_range(0..USERS);
                let transaction = rng.random_range(0..running);
                self.database.write(transaction, user, &self.users);
            }
            35..50 if running > 0 => self.database.commit(rng.random_range(0..running)),
            50..53 if running > 0 => self.database.roll_back(rng.random_range(0..running)),
            53..60 => {
                self.now += Duration::from_millis(rng.random_range(0..1_200));
                self.database.barrier();
            }
            60..72 => self.listen(rng.random_range(1..6)),
            72..74 => self.lose_the_listener(),
            74..84 => self.receive(n, rng.random_range(1..5)),
            84..90 => self.page(n),
            90..93 => self.heartbeat(n),
            93..96 => self.disconnect(n),
            _ => self.come_back(n, rng),
        }
    }

    fn come_back(&mut self, n: usize, rng: &mut StdRng) {
        if self.clients[n].connection.is_some() {
            return;
        }
        let since = self.clients[n].cursor.clone();
        if self.clients[n].began.is_none() && rng.random_bool(0.5) {
            // The client has read its state together with a snapshot.
            let state = cursor(self.database.snapshot(), false);
            self.clients[n].began = Some(state.snapshot.clone());
            self.connect(n, Some(state));
        } else {
            self.connect(n, since);
        }
    }

    /// Everything commits, is routed and arrives; every client is connected.
    pub(super) fn settle(&mut self, rng: &mut StdRng) {
        while !self.database.running.is_empty() {
            self.database.commit(0);
        }
        for _ in 0..3 {
            self.now += Duration::from_secs(1);
            self.database.barrier();
            self.listen(usize::MAX);
        }
        for n in 0..self.clients.len() {
            self.come_back(n, rng);
            for _ in 0..200 {
                self.page(n);
                self.receive(n, 50);
                self.heartbeat(n);
            }
        }
    }

    pub(super) fn check(&self) {
        for (n, client) in self.clients.iter().enumerate() {
            let began = client.began.as_ref().unwrap();
            let rows = self.database.read(began, &self.database.snapshot());
            let rows: HashMap<_, _> = rows
                .iter()
                .filter(|row| row.user == client.user)
                .map(|row| (row.id, row))
                .collect();
            let missing: Vec<_> = rows
                .keys()
                .filter(|id| !client.known.contains(id))
                .collect();
            assert!(
                missing.is_empty(),
                "seed {}: client {n} was not sent {missing:?}",
                self.seed
            );
            let mut arrived = HashSet::new();
            for id in &client.received {
                let Some(row) = rows.get(id) else { continue };
                let overtaken = row
                    .seen
                    .iter()
                    .find(|seen| rows.contains_key(seen) && !arrived.contains(*seen));
                assert_eq!(
                    overtaken, None,
                    "seed {}: client {n} was sent {id} before what its writer had seen",
                    self.seed
                );
                arrived.insert(*id);
            }
        }
    }
}
