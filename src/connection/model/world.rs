//! The world of the model: the database, two servers' parts, and clients.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::watch;
use uuid::Uuid;

use super::database::{Database, Notified, Row, cursor};
use crate::connection::position::{Position, Source, Verdict};
use crate::delivery::{Bounds, Feed, Found, Hub, ReplayBuffer, Router, Subscription};
use crate::metrics::Metrics;
use crate::protocol::{Cursor, Notification, Signal, Snapshot};

const SERVERS: usize = 2;
const USERS: usize = 2;
/// Rows in one page of the made-up log.
const PAGE: usize = 3;

/// What one server has of each part.
struct Server {
    router: Router,
    buffer: ReplayBuffer,
    hub: Hub,
    feed: watch::Receiver<Feed>,
}

/// A replay from the log that is being sent.
struct Paging {
    /// The cursor that the client keeps meanwhile.
    kept: Arc<Cursor>,
    until: Snapshot,
    /// The pages that are left.
    rows: VecDeque<Row>,
}

/// One connection, which does what `Replay` and `Connection` do, with a list in the place of the socket.
struct Connection {
    server: usize,
    subscription: Subscription,
    position: Position,
    /// The ids that were queued to this socket, in order.
    queued: Vec<i64>,
    paging: Option<Paging>,
}

/// One client of a user, over all of its connections. It keeps what the protocol asks for: its newest cursor, and the
/// ids that came under this cursor and under the one before.
struct Client {
    user: usize,
    connection: Option<Connection>,
    cursor: Option<Cursor>,
    ids: HashSet<i64>,
    ids_before: HashSet<i64>,
    /// Where its history begins.
    began: Option<Snapshot>,
    /// The ids that it has handed on, in their order.
    received: Vec<i64>,
}

impl Client {
    fn keep(&mut self, cursor: &Cursor) {
        let is_new = |known: &Cursor| known.to_string() != cursor.to_string();
        if self.cursor.as_ref().is_none_or(is_new) {
            self.cursor = Some(cursor.clone());
            self.ids_before = mem::take(&mut self.ids);
        }
    }
}

pub(super) struct World {
    seed: u64,
    users: [Uuid; USERS],
    database: Database,
    servers: Vec<Server>,
    clients: Vec<Client>,
    now: Instant,
}

impl Server {
    fn route(&mut self, row: &Row) {
        self.router.route(Notification::parse(&row.text).unwrap());
    }
}

impl World {
    pub(super) fn new(seed: u64, rng: &mut StdRng) -> Self {
        let now = Instant::now();
        let database = Database::new(SERVERS);
        let servers = (0..SERVERS).map(|_| {
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
            router.advance(cursor(database.snapshot(), None), now);
            Server {
                router,
                buffer,
                hub,
                feed,
            }
        });
        let servers = servers.collect();
        let clients = (0..4).map(|n| Client {
            user: n % USERS,
            connection: None,
            cursor: None,
            ids: HashSet::new(),
            ids_before: HashSet::new(),
            began: None,
            received: Vec::new(),
        });
        Self {
            seed,
            users: [Uuid::from_u128(1), Uuid::from_u128(2)],
            database,
            servers,
            clients: clients.collect(),
            now,
        }
    }

    /// A server's listener takes what was notified.
    fn listen(&mut self, server: usize, notifications: usize) {
        for _ in 0..notifications {
            let channel = &mut self.database.channels[server];
            match channel.notified.pop_front() {
                None => return,
                Some(Notified::Row(row)) => self.servers[server].route(&row),
                Some(Notified::Barrier(barrier)) => {
                    let router = &mut self.servers[server].router;
                    router.complete_barrier(barrier, self.now);
                }
            }
        }
    }

    /// A listener's connection is lost with everything on it, and the log is read from the durable position.
    fn lose_the_listener(&mut self, server: usize) {
        self.database.channels[server].lose();
        let until = self.database.snapshot();
        let server = &mut self.servers[server];
        server.router.away();
        server.router.go_back_to_durable();
        let from = server.router.durable_position().unwrap().snapshot.clone();
        for row in self.database.read(&from, &until) {
            server.route(&row);
        }
        server.router.advance(cursor(until, None), self.now);
    }

    fn connect(&mut self, n: usize, server: usize, since: Option<Cursor>) {
        let client = &mut self.clients[n];
        let user_id = self.users[client.user];
        let Server {
            buffer, hub, feed, ..
        } = &self.servers[server];
        let subscribed_after = buffer.last_sequence();
        let mut connection = Connection {
            server,
            subscription: hub.subscribe(user_id),
            position: Position::new(subscribed_after),
            queued: Vec::new(),
            paging: None,
        };
        let present = feed.borrow().cursor().cloned();
        connection.position.begin_at(present.clone());
        let Some(since) = since else {
            // The client reads its state after its first frame.
            client.began = Some(self.database.snapshot());
            client.keep(&present.unwrap());
            connection.position.end_replay();
            client.connection = Some(connection);
            return;
        };
        let since = Arc::new(since);
        client.keep(&since);
        if let Some(found) = buffer.since(user_id, &since.snapshot) {
            let position = &mut connection.position;
            position.resume_from_buffer(Arc::clone(&since), self.now);
            client.connection = Some(connection);
            self.send_from_buffer(n, found, Some(&since.snapshot));
            self.position(n).end_replay();
        } else {
            client.connection = Some(connection);
            self.begin_paging(n, since, true);
        }
    }

    /// The position of this client's connection.
    fn position(&mut self, n: usize) -> &mut Position {
        &mut self.clients[n].connection.as_mut().unwrap().position
    }

    /// The replay buffer of this client's server.
    fn buffer(&self, n: usize) -> ReplayBuffer {
        let connection = self.clients[n].connection.as_ref().unwrap();
        self.servers[connection.server].buffer.clone()
    }

    fn send_from_buffer(&mut self, n: usize, mut found: Found, since: Option<&Snapshot>) {
        let user_id = self.users[self.clients[n].user];
        loop {
            for signal in found.signals {
                self.take(n, &signal, Source::Buffer);
            }
            if !found.more {
                return;
            }
            let taken = self.position(n).taken();
            found = self.buffer(n).since_after(user_id, since, taken).unwrap();
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
        connection.paging = Some(Paging { kept, until, rows });
    }

    /// Sends the next page of a replay from the log.
    fn page(&mut self, n: usize) {
        let Some(connection) = &mut self.clients[n].connection else {
            return;
        };
        let Some(mut paging) = connection.paging.take() else {
            return;
        };
        let with_cursor = connection.position.gives_cursors();
        let kept = Arc::clone(&paging.kept);
        let sent: Vec<_> = paging.rows.drain(..PAGE.min(paging.rows.len())).collect();
        if paging.rows.is_empty() {
            let present = Arc::new(cursor(paging.until.clone(), None).for_clients());
            let position = &mut connection.position;
            position.resume_from_log(paging.kept, paging.until, present);
            position.end_replay();
        } else {
            connection.paging = Some(paging);
        }
        for row in sent {
            self.queue(n, row.id, with_cursor.then_some(&kept));
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
        let is_known = client.ids.contains(&id) || client.ids_before.contains(&id);
        if let Some(cursor) = cursor {
            client.keep(cursor);
        }
        client.ids.insert(id);
        if !is_known {
            assert!(
                !client.received.contains(&id),
                "seed {seed}: client {n} has forgotten {id}, and is sent it again"
            );
            client.received.push(id);
        }
        self.check_cursor(n);
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
        let position = self.position(n);
        position.begin_replay();
        let after = position.repair_after();
        if let Some(found) = self.buffer(n).after(user_id, after) {
            self.send_from_buffer(n, found, None);
            self.position(n).end_replay();
        } else {
            let from = self.position(n).repair_from().cloned().unwrap();
            self.begin_paging(n, from, false);
        }
    }

    /// The heartbeat, or the end of a replay: the client is given the cursor that it may keep.
    fn heartbeat(&mut self, n: usize) {
        let Some(connection) = &mut self.clients[n].connection else {
            return;
        };
        if connection.position.is_replaying() {
            return;
        }
        let feed = self.servers[connection.server].feed.borrow();
        if let Some(cursor) = feed.cursor()
            && connection.subscription.receiver().is_empty()
        {
            connection.position.advance(Arc::clone(cursor));
        }
        drop(feed);
        self.give_cursor(n);
    }

    fn give_cursor(&mut self, n: usize) {
        let client = &mut self.clients[n];
        let connection = client.connection.as_ref().unwrap();
        if let Some(cursor) = connection.position.client_cursor().cloned() {
            client.keep(&cursor);
        }
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
                row.user != client.user || client.received.contains(&row.id),
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
        let server = rng.random_range(0..SERVERS);
        let running = self.database.running.len();
        // No two things happen at the same time.
        self.now += Duration::from_nanos(1);
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
                self.database.barrier(server, self.now);
            }
            60..72 => self.listen(server, rng.random_range(1..6)),
            72..74 => self.lose_the_listener(server),
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
        let server = rng.random_range(0..SERVERS);
        let since = self.clients[n].cursor.clone();
        if self.clients[n].began.is_none() && rng.random_bool(0.5) {
            // The client has read its state together with a snapshot.
            let state = cursor(self.database.snapshot(), None);
            self.clients[n].began = Some(state.snapshot.clone());
            self.connect(n, server, Some(state));
        } else {
            self.connect(n, server, since);
        }
    }

    /// Everything commits, is routed and arrives; every client is connected.
    pub(super) fn settle(&mut self, rng: &mut StdRng) {
        while !self.database.running.is_empty() {
            self.database.commit(0);
        }
        for _ in 0..4 {
            self.now += Duration::from_secs(1);
            for server in 0..SERVERS {
                self.database.barrier(server, self.now);
                self.listen(server, usize::MAX);
            }
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
                .filter(|id| !client.received.contains(id))
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
