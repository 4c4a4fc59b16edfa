//! A client: it keeps its newest cursor, and the ids that came under this cursor and under the one before.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use uuid::Uuid;

use super::super::database::{ALL_USERS, Database, Row};
use super::scenario::Node;
use super::server::Server;
use crate::connection::position::{Position, Source, Verdict};
use crate::connection::replay::refusal;
use crate::delivery::Subscription;
use crate::protocol::{Cursor, ResetReason, Signal, Snapshot};

/// What a client has found wrong.
pub(super) type Checked = Result<(), String>;

/// One connection, with a list in the place of the socket.
struct Connection {
    home: Node,
    subscription: Subscription,
    position: Position,
    /// Whether the hello was sent: the node serves the user's shard.
    entered: bool,
    /// Whether the node has the database's history. If not, it resets its clients when it finds the history.
    is_of_history: bool,
    /// The ids that were sent.
    sent: Vec<i64>,
}

/// One client over all of its connections.
pub(super) struct Client {
    pub(super) user: usize,
    id: Uuid,
    connection: Option<Connection>,
    cursor: Option<Cursor>,
    /// Whether the cursor is another than at the last check.
    has_moved: bool,
    ids: BTreeSet<i64>,
    ids_before: BTreeSet<i64>,
    /// What its state has seen: it was read after its first hello, or after the last reset.
    began: Option<Cursor>,
    /// The ids that it has handed on, in their order.
    received: Vec<i64>,
}

impl Client {
    pub(super) fn new(user: usize, id: Uuid) -> Self {
        Self {
            user,
            id,
            connection: None,
            cursor: None,
            has_moved: false,
            ids: BTreeSet::new(),
            ids_before: BTreeSet::new(),
            began: None,
            received: Vec::new(),
        }
    }

    pub(super) fn home(&self) -> Option<Node> {
        self.connection.as_ref().map(|connection| connection.home)
    }

    /// It subscribes. [`Client::go_on`] says hello when the node serves its shard.
    pub(super) fn come(&mut self, home: Node, server: &mut Server) {
        server.trace(("come", self.user));
        let subscribed_after = server.buffer.last_sequence();
        self.connection = Some(Connection {
            home,
            subscription: server.hub.subscribe(self.id),
            position: Position::new(subscribed_after),
            entered: false,
            is_of_history: true,
            sent: Vec::new(),
        });
    }

    pub(super) fn leave(&mut self, server: &mut Server) {
        server.trace(("leave", self.user));
        self.connection = None;
    }

    /// It takes everything that there is for it, and then the cursor that it may keep.
    pub(super) fn go_on(&mut self, server: &mut Server, database: &Database) -> Checked {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        connection.is_of_history = server.intake.position().epoch == database.epoch();
        if !connection.entered {
            if !self.is_served(server) {
                return Ok(());
            }
            server.trace(("enter", self.user, database.snapshot()));
            self.enter(server, database)?;
        }
        while let Some(signal) = self.next_signal() {
            self.take(&signal, Source::Live, database)?;
        }
        if let Some(given) = server.given() {
            self.position().advance(given);
        }
        if let Some(kept) = self.position().client_cursor().cloned() {
            self.keep(&kept);
        }
        if mem::take(&mut self.has_moved) {
            self.check_cursor(database)?;
        }
        Ok(())
    }

    /// Whether its hello is due. A client from a promoted standby waits until the node has it, too.
    fn is_served(&self, server: &Server) -> bool {
        let feed = server.feed.borrow();
        let is_ahead = self
            .cursor
            .as_ref()
            .zip(feed.cursor())
            .is_some_and(|(cursor, here)| cursor.epoch.is_of_a_later_timeline_than(here.epoch));
        feed.serves(self.id.into()) && !is_ahead
    }

    fn next_signal(&mut self) -> Option<Arc<Signal>> {
        let connection = self.connection.as_mut()?;
        connection.subscription.receiver().try_recv().ok()
    }

    /// The position of its connection.
    fn position(&mut self) -> &mut Position {
        &mut self.connection.as_mut().unwrap().position
    }

    fn enter(&mut self, server: &Server, database: &Database) -> Checked {
        self.connection.as_mut().unwrap().entered = true;
        let given = server.given();
        let new_history = server.feed.borrow().new_history();
        let position = self.position();
        position.begin_after(new_history);
        position.begin_at(given.clone());
        let given = given.unwrap();
        let Some(since) = self.cursor.clone().map(Arc::new) else {
            self.begin_at(&given, database);
            self.position().end_replay();
            return Ok(());
        };
        if since.epoch != given.epoch {
            self.reset(given, database);
        } else if let Some(found) = server.buffer.since(self.id, &since.snapshot) {
            let now = server.now;
            self.position().resume_from_buffer(since, now);
            for signal in found.signals {
                self.take(&signal, Source::Buffer, database)?;
            }
        } else {
            self.read_log(&since, database)?;
        }
        self.position().end_replay();
        Ok(())
    }

    /// It reads its state, and goes on from this cursor.
    fn begin_at(&mut self, cursor: &Cursor, database: &Database) {
        self.began = Some(Cursor {
            epoch: cursor.epoch,
            ..database.present()
        });
        self.keep(cursor);
    }

    /// It has missed what cannot be sent, and forgets what it has.
    fn reset(&mut self, cursor: Arc<Cursor>, database: &Database) {
        self.forget();
        self.begin_at(&cursor, database);
        self.position().begin_at(Some(cursor));
    }

    /// What it had is worth nothing any more, and what its new state has seen may come once more.
    fn forget(&mut self) {
        self.connection.as_mut().unwrap().sent.clear();
        (self.cursor, self.ids, self.ids_before) = Default::default();
        self.received.clear();
    }

    fn read_log(&mut self, since: &Arc<Cursor>, database: &Database) -> Checked {
        let mut reading = database.reading(&since.snapshot);
        let until = reading.cursor.snapshot.clone();
        let rows = database.read(&since.snapshot, &until);
        if rows.iter().any(|row| row.user == ALL_USERS) {
            reading.gap = Some(ResetReason::Truncated);
        }
        let present = Arc::new(reading.cursor.for_clients());
        if refusal(&reading, since).is_some() {
            self.reset(present, database);
            return Ok(());
        }
        self.position()
            .resume_from_log(Arc::clone(since), until, present);
        let user = self.user;
        for row in rows.iter().filter(|row| row.user == user) {
            self.receive(row.id, None, database)?;
        }
        Ok(())
    }

    fn keep(&mut self, cursor: &Cursor) {
        let is_new =
            |known: &Cursor| (known.epoch, &known.snapshot) != (cursor.epoch, &cursor.snapshot);
        if self.cursor.as_ref().is_none_or(is_new) {
            self.cursor = Some(cursor.clone());
            self.has_moved = true;
            self.ids_before = mem::take(&mut self.ids);
        }
    }

    fn take(&mut self, signal: &Signal, source: Source, database: &Database) -> Checked {
        let Verdict::Send { with_cursor } = self.position().take(signal, source) else {
            return Ok(());
        };
        match signal {
            Signal::Event(event) => {
                let cursor = event.cursor.as_ref().filter(|_| with_cursor);
                self.receive(event.id.unwrap(), cursor, database)
            }
            Signal::Reset(reset) => {
                self.forget();
                self.begin_at(reset.cursor.as_ref().unwrap(), database);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// It is sent an event.
    fn receive(&mut self, id: i64, cursor: Option<&Arc<Cursor>>, database: &Database) -> Checked {
        let sent = &mut self.connection.as_mut().unwrap().sent;
        if sent.contains(&id) {
            return Err(format!("event {id} is sent twice on one connection"));
        }
        sent.push(id);
        self.check_history(id, database)?;
        let is_known = self.ids.contains(&id) || self.ids_before.contains(&id);
        if let Some(cursor) = cursor {
            self.keep(cursor);
        }
        self.ids.insert(id);
        if is_known {
            return Ok(());
        }
        if self.received.contains(&id) {
            return Err(format!("event {id} is handed on twice"));
        }
        let mut rows = self.rows(database, None);
        // A reset comes after the events of the read that has found its cause.
        rows.retain(|row| row.user == self.user && row.is_retained);
        let overtaken = rows.iter().find(|row| row.id == id).and_then(|row| {
            let is_missing = |seen: &&i64| {
                !self.received.contains(seen) && rows.iter().any(|row| row.id == **seen)
            };
            row.seen.iter().find(is_missing).copied()
        });
        if let Some(overtaken) = overtaken {
            return Err(format!(
                "event {id} overtakes event {overtaken}, which its writer has seen"
            ));
        }
        self.received.push(id);
        Ok(())
    }

    /// Whether its state is of the database's history. Until a node tells it of another, there is nothing to hold it to.
    fn is_of_history(&self, database: &Database) -> bool {
        let began = self.began.as_ref();
        began.is_some_and(|began| began.epoch == database.epoch())
    }

    fn check_history(&self, id: i64, database: &Database) -> Checked {
        let connection = self.connection.as_ref().unwrap();
        if connection.is_of_history && self.is_of_history(database) && !database.has(id) {
            return Err(format!("event {id} is of another history"));
        }
        Ok(())
    }

    /// The rows for it, and for all users, since it began, up to a snapshot or the present.
    fn rows(&self, database: &Database, until: Option<&Snapshot>) -> Vec<Row> {
        let Some(began) = &self.began else {
            return Vec::new();
        };
        let present = database.snapshot();
        let mut rows = database.committed(&began.snapshot, until.unwrap_or(&present));
        rows.retain(|row| [self.user, ALL_USERS].contains(&row.user));
        rows
    }

    /// What its cursor sees, it has.
    fn check_cursor(&self, database: &Database) -> Checked {
        let Some(cursor) = &self.cursor else {
            return Ok(());
        };
        if !self.is_of_history(database) || cursor.epoch != database.epoch() {
            return Ok(());
        }
        self.check_has(&self.rows(database, Some(&cursor.snapshot)), &|id| {
            format!("event {id} is lost: the client may keep {cursor}, which sees it")
        })
    }

    fn check_has(&self, rows: &[Row], error: &dyn Fn(i64) -> String) -> Checked {
        match rows.iter().find(|row| !self.received.contains(&row.id)) {
            Some(row) if row.user == ALL_USERS => {
                Err(format!("the reset is lost: {}", error(row.id)))
            }
            Some(row) => Err(error(row.id)),
            None => Ok(()),
        }
    }

    /// It has everything, and a cursor that sees everything.
    pub(super) fn check_end(&self, database: &Database) -> Checked {
        if !self.is_of_history(database) {
            return Err("the client has not come to the new history in the end".to_owned());
        }
        let rows = self.rows(database, None);
        self.check_has(&rows, &|id| {
            format!("event {id} is lost: it has not come in the end")
        })?;
        let sees_all = |cursor: &Cursor| rows.iter().all(|row| cursor.snapshot.sees(row.xid));
        match &self.cursor {
            Some(cursor) if cursor.epoch == database.epoch() && sees_all(cursor) => Ok(()),
            _ => Err("no barrier is passed in the end".to_owned()),
        }
    }
}
