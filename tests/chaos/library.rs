//! The reference client: it keeps its newest cursor, and the ids that it got under this cursor and the one
//! before, as `docs/protocol.md` says, and so hands out each event once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hushnet_realtime::protocol::is_reserved;
use serde::Deserialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use uuid::Uuid;

use crate::ledger::Ledger;

/// Connections and cursors that are kept.
const TRAIL_MAX: usize = 20;

/// The fields of a frame that the checker reads.
#[derive(Debug, Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    user_id: Option<Uuid>,
    /// Of a message.
    chat_id: Option<Uuid>,
    /// Of an order.
    key: Option<Key>,
    id: Option<i64>,
    cursor: Option<&'a str>,
    reason: Option<&'a str>,
}

/// The primary key of a row.
#[derive(Debug, Deserialize)]
struct Key {
    chat_id: Uuid,
}

/// The client's next action after a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    Nothing,
    /// Fetch the state anew.
    Refetch,
}

/// One event as it was handed out.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub message: usize,
    pub at: Instant,
}

/// A client's memory, which outlives its connections.
#[derive(Debug)]
pub struct Library {
    pub user: usize,
    user_id: Uuid,
    pub cursor: Option<String>,
    /// Ids that came under the newest cursor.
    ids: HashSet<i64>,
    /// Ids that came under the one before.
    ids_before: HashSet<i64>,
    /// The messages behind the ids.
    handed: HashSet<usize>,
    /// In the order of their first arrival.
    pub arrivals: Vec<Arrival>,
    /// The messages that the state had after a reset.
    pub refetched: HashSet<usize>,
    /// How often the server asked for a refetch, by its reason.
    pub resets: HashMap<String, usize>,
    /// Events on the wire, repetitions included.
    pub deliveries: usize,
    /// Frames that no writer has caused, and events of others.
    pub strange: Vec<String>,
    /// Events that were handed out before.
    pub twice: Vec<String>,
    /// Connections that were made.
    pub connects: usize,
    /// The last connections and cursors, to explain what came twice.
    trail: VecDeque<String>,
}

impl Library {
    pub fn new(user: usize, user_id: Uuid) -> Self {
        Self {
            user,
            user_id,
            cursor: None,
            ids: HashSet::new(),
            ids_before: HashSet::new(),
            handed: HashSet::new(),
            arrivals: Vec::new(),
            refetched: HashSet::new(),
            resets: HashMap::new(),
            deliveries: 0,
            strange: Vec::new(),
            twice: Vec::new(),
            connects: 0,
            trail: VecDeque::new(),
        }
    }

    /// With the second of the minute, to be found in the nodes' logs.
    fn leave_trail(&mut self, what: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let second = now.as_millis() % 60_000;
        self.trail.truncate(TRAIL_MAX - 1);
        self.trail
            .push_front(format!("{}.{:03} {what}", second / 1000, second % 1000));
    }

    /// The client has a new connection to this server.
    pub fn connected(&mut self, server: usize) {
        self.connects += 1;
        self.leave_trail(&format!("server {server}"));
    }

    /// How the client asks for its events, from its cursor on if it has one.
    pub fn request(&self, address: SocketAddr, v1: bool) -> Request {
        let mut url = format!("ws://{address}/ws?user_id={}", self.user_id);
        if let Some(cursor) = &self.cursor {
            url = format!("{url}&since={cursor}");
        }
        if !v1 {
            // A client of the specification knows HushNet's kinds alone.
            url.push_str("&kinds=message,order");
        }
        let mut request = url.into_client_request().unwrap();
        if v1 {
            let v1 = HeaderValue::from_static("hushnet.v1");
            request.headers_mut().insert("Sec-WebSocket-Protocol", v1);
        }
        request
    }

    /// Takes a text frame.
    pub fn take(&mut self, text: &str, ledger: &Ledger) -> Todo {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            self.strange.push(format!("no frame: {text}"));
            return Todo::Nothing;
        };
        let known = frame
            .id
            .is_some_and(|id| self.ids.contains(&id) || self.ids_before.contains(&id));
        if let Some(cursor) = frame.cursor.filter(|c| self.cursor.as_deref() != Some(*c)) {
            self.leave_trail(&format!(
                "{} of {} ids: {cursor}",
                frame.kind,
                self.ids.len()
            ));
            self.cursor = Some(cursor.to_owned());
            self.ids_before = mem::take(&mut self.ids);
        }
        self.ids.extend(frame.id);
        let mut todo = Todo::Nothing;
        match frame.kind {
            "hello" | "cursor" | "pong" | "goaway" => {}
            "reset" => {
                let reason = frame.reason.unwrap_or_default().to_owned();
                if ["history", "future"].contains(&&*reason) {
                    self.ids.clear();
                    self.ids_before.clear();
                }
                *self.resets.entry(reason).or_default() += 1;
                todo = Todo::Refetch;
            }
            kind if is_reserved(kind) => self.strange.push(format!("unexpected: {text}")),
            // Whatever its kind.
            _ => self.take_event(&frame, text, ledger, known),
        }
        todo
    }

    fn take_event(&mut self, frame: &Frame<'_>, text: &str, ledger: &Ledger, known: bool) {
        self.deliveries += 1;
        if frame.user_id != Some(self.user_id) {
            self.strange.push(format!("somebody else's: {text}"));
        }
        let chat_id = frame.key.as_ref().map(|key| key.chat_id).or(frame.chat_id);
        let message = chat_id.and_then(|chat_id| ledger.message(chat_id));
        let (Some(message), Some(_)) = (message, frame.id) else {
            self.strange.push(format!("written by nobody: {text}"));
            return;
        };
        if known {
            return;
        }
        if !self.handed.insert(message) {
            let first = self
                .arrivals
                .iter()
                .find(|arrival| arrival.message == message);
            let ago = first.map(|arrival| arrival.at.elapsed());
            let trail = Vec::from_iter(&self.trail);
            self.twice.push(format!(
                "{text}, first {ago:?} ago; newest first: {trail:#?}"
            ));
            return;
        }
        self.arrivals.push(Arrival {
            message,
            at: Instant::now(),
        });
    }

    /// Whether the client knows of this message.
    pub fn has(&self, message: usize) -> bool {
        self.handed.contains(&message) || self.refetched.contains(&message)
    }
}
