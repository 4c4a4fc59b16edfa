//! A whole connection and its client, over a stream in memory, in made-up time.
//!
//! The router, the hub, the replay buffer and the clock are the real ones; the database is not there. The runtime's
//! clock is paused: it goes on when everything waits, or when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hushnet_websocket::{CloseQueue, Socket, SocketLimits};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Clock, Connection, Drain, PendingConnection, Shared, Timeouts, WallClock};
use crate::config::Config;
use crate::delivery::{Bounds, Hub, LatencySampler, ReplayBuffer, Router};
use crate::identity::{Authenticator, Identity};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::protocol::{CloseCode, Closed, Cursor, Encoding, Notification};
use crate::store::Log;

mod expiry;
mod schedules;

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the wall clock shows at the beginning, in seconds since 1970.
const WALL_BEGUN_S: u64 = 1_700_000_000;
/// In made-up time: nothing takes that long.
const DEADLINE: Duration = Duration::from_hours(1);

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// A server without a database, and one of its users.
struct Server {
    shared: Arc<Shared>,
    router: Router,
    user_id: Uuid,
    routed: i64,
    /// Seconds since 1970 that the wall clock is ahead of the runtime's.
    wall_s: Arc<AtomicU64>,
}

/// A client at the other end of a connection.
struct Client {
    stream: DuplexStream,
    received: Vec<u8>,
    connection: JoinHandle<Closed>,
}

#[derive(Debug, PartialEq)]
struct Frame {
    opcode: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }
}

impl Server {
    fn start(write_buffer_bytes_max: usize) -> Self {
        Self::with_write_timeout(write_buffer_bytes_max, WRITE_TIMEOUT)
    }

    fn with_write_timeout(write_buffer_bytes_max: usize, write_timeout: Duration) -> Self {
        let now = Instant::now().into_std();
        let config = Config::default();
        let log = Log::new("postgres://nowhere@127.0.0.1:1/none".parse().unwrap(), 1);
        let metrics = Arc::new(Metrics::new());
        let hub = Hub::new(4);
        let bounds = Bounds {
            bytes_max: 1 << 20,
            age_max: Duration::from_hours(1),
        };
        let replay_buffer = ReplayBuffer::new(bounds, now);
        let (mut router, feed) = Router::new(
            hub.clone(),
            replay_buffer.clone(),
            Arc::clone(&metrics),
            now,
        );
        router.advance(barrier(1), now);
        let wall_s = Arc::new(AtomicU64::new(WALL_BEGUN_S));
        let (begun, ahead) = (Instant::now(), Arc::clone(&wall_s));
        let clock = Arc::new(Clock::with_wall(WallClock::new(move || {
            let ahead = Duration::from_secs(ahead.load(Ordering::Relaxed));
            SystemTime::UNIX_EPOCH + ahead + begun.elapsed()
        })));
        tokio::spawn(Arc::clone(&clock).run(hub.clone()));
        let auth =
            Authenticator::new(&config.identity, 16, log.devices(), log.known_kinds()).unwrap();
        let shared = Shared {
            timeouts: Timeouts {
                ping_interval: PING_INTERVAL,
                pong_timeout: PONG_TIMEOUT,
                write_timeout,
            },
            client_frames_per_second: 1_000,
            socket_limits: SocketLimits {
                frame_bytes_max: 1_024,
                write_buffer_bytes_max,
            },
            close_queue: CloseQueue::new(1),
            clock,
            hub,
            replay_buffer,
            limits: Arc::new(Limits::new(&config.limits, 4)),
            auth: Arc::new(auth),
            log,
            feed,
            health: router.health_report(),
            metrics,
            latency: LatencySampler::new().0,
            drain: Drain::default(),
        };
        Self {
            shared: Arc::new(shared),
            router,
            user_id: Uuid::from_u128(1),
            routed: 0,
            wall_s,
        }
    }

    /// A client that connects with this encoding and cursor.
    fn connect(
        &self,
        encoding: Encoding,
        since: Option<&str>,
        identity: Option<Identity>,
        stream_bytes: usize,
    ) -> Client {
        let (ours, stream) = tokio::io::duplex(stream_bytes);
        let shared = Arc::clone(&self.shared);
        let since = since.map(|text| text.parse().map(Arc::new));
        let pending =
            PendingConnection::subscribe(&shared, self.user_id, encoding, since, identity);
        let connection = tokio::spawn(async move {
            let socket = Socket::new(ours, &[], shared.socket_limits);
            let (mut connection, since) = Connection::new(shared, socket, pending);
            let closed = super::run(&mut connection, since).await;
            connection.close(closed).await;
            closed
        });
        Client {
            stream,
            received: Vec::new(),
            connection,
        }
    }

    /// The next event of the user: its id is the number of its transaction.
    fn route(&mut self) {
        self.routed += 1;
        self.route_text(&format!(
            r#"{{"type":"device","user_id":"{}", "id" : {1}, "xid" : {1}}}"#,
            self.user_id, self.routed
        ));
    }

    /// The device of this number was deleted, by this transaction.
    fn revoke(&mut self, device: u128, xid: i64) {
        self.route_text(&format!(
            r#"{{"type":"revocation","user_id":"{}","device_id":"{}", "id" : {xid}, "xid" : {xid}}}"#,
            self.user_id,
            Uuid::from_u128(device)
        ));
    }

    fn route_text(&mut self, text: &str) {
        self.router.route(Notification::parse(text).unwrap());
    }

    /// A barrier that has seen everything routed so far.
    fn complete_barrier(&mut self) {
        let barrier = barrier(self.routed + 1);
        self.router
            .complete_barrier(barrier, Instant::now().into_std());
    }
}

fn barrier(next: i64) -> Cursor {
    Cursor {
        sent: Some(std::time::Instant::now()),
        ..format!("1-1.{next}:{next}:").parse().unwrap()
    }
}

/// The first transaction that a cursor has not seen.
fn unseen(cursor: &Value) -> i64 {
    let text = cursor.as_str().unwrap();
    text.split(['.', ':']).nth(1).unwrap().parse().unwrap()
}

impl Client {
    async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).unwrap();
        assert!(length < 126, "a short frame");
        let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        let sent = tokio::time::timeout(DEADLINE, self.stream.write_all(&frame));
        sent.await.unwrap().unwrap();
    }

    /// A frame that has been read.
    fn take_frame(&mut self) -> Option<Frame> {
        let [first, second, ..] = *self.received else {
            return None;
        };
        assert_eq!(
            (first & 0x70, second & 0x80),
            (0, 0),
            "no frame of a server"
        );
        let (length, header) = match second {
            126 => (
                usize::from(u16::from_be_bytes([
                    *self.received.get(2)?,
                    *self.received.get(3)?,
                ])),
                4,
            ),
            length => (usize::from(length), 2),
        };
        if self.received.len() < header + length {
            return None;
        }
        let payload = self.received[header..header + length].to_vec();
        self.received.drain(..header + length);
        Some(Frame {
            opcode: first & 0xf,
            payload,
        })
    }

    /// Reads at most so many bytes, if there are any.
    async fn read(&mut self, most: usize) -> bool {
        let mut piece = vec![0; most];
        let read = tokio::time::timeout(DEADLINE, self.stream.read(&mut piece));
        let bytes = read.await.unwrap().unwrap();
        self.received.extend_from_slice(&piece[..bytes]);
        bytes > 0
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.take_frame() {
                return frame;
            }
            assert!(self.read(4_096).await, "the server has closed the stream");
        }
    }

    /// The next frame that is not a ping.
    async fn message(&mut self) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.opcode != PING {
                return frame;
            }
            self.send(PONG, &[]).await;
        }
    }

    /// Why the connection ended.
    async fn ended(self) -> Closed {
        drop(self.stream);
        self.connection.await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_v1_client_is_greeted_and_gets_events_with_cursors() {
    let mut server = Server::start(65_536);
    let mut client = server.connect(Encoding::V1, None, None, 65_536);
    let hello = client.message().await.json();
    assert_eq!(
        (&hello["type"], &hello["cursor"]),
        (&"hello".into(), &"1-1.1:1:".into())
    );
    server.route();
    let event = client.message().await.json();
    assert_eq!(
        (&event["id"], &event["cursor"]),
        (&1.into(), &"1-1.1:1:".into())
    );
    client.send(TEXT, br#"{"type":"ping"}"#).await;
    assert_eq!(client.message().await.payload, br#"{"type":"pong"}"#);
    client.send(TEXT, br#"{"type":"dance"}"#).await;
    assert_eq!(client.message().await.json()["code"], "unknown_type");
    // Nobody asked this client for a token.
    client.send(TEXT, br#"{"type":"auth","token":"x"}"#).await;
    assert_eq!(client.message().await.json()["code"], "credentials_missing");
    assert_eq!(client.ended().await, Closed::ByClient);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_must_not_send_closes_its_connection() {
    for (opcode, payload, code) in [
        (TEXT, &b"no json"[..], CloseCode::Malformed),
        (TEXT, b"\xff", CloseCode::Malformed),
        (BINARY, b"{}", CloseCode::Unsupported),
        (0xb, b"", CloseCode::Protocol),
    ] {
        let server = Server::start(65_536);
        let mut client = server.connect(Encoding::Plain, None, None, 65_536);
        client.send(opcode, payload).await;
        assert_eq!(client.frame().await.close_code(), code.code());
        assert_eq!(client.ended().await, Closed::ByServer(code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_ping_is_closed_after_the_pong_timeout() {
    let server = Server::start(65_536);
    let begun = Instant::now();
    let mut client = server.connect(Encoding::Plain, None, None, 65_536);
    assert_eq!(client.frame().await.opcode, PING);
    assert!(begun.elapsed() >= PING_INTERVAL);
    client.send(PONG, &[]).await;
    let answered = Instant::now();
    assert_eq!(client.frame().await.opcode, PING);
    assert!(answered.elapsed() >= PING_INTERVAL);
    let pinged = Instant::now();
    assert_eq!(
        client.frame().await.close_code(),
        CloseCode::IdleTimeout.code()
    );
    assert!(pinged.elapsed() >= PONG_TIMEOUT);
    assert_eq!(
        client.ended().await,
        Closed::ByServer(CloseCode::IdleTimeout)
    );
}

#[tokio::test(start_paused = true)]
async fn a_v1_client_that_is_never_silent_gets_its_cursor_with_each_heartbeat() {
    let server = Server::start(65_536);
    let mut client = server.connect(Encoding::V1, None, None, 65_536);
    let (begun, mut cursors) = (Instant::now(), 0);
    while begun.elapsed() < PING_INTERVAL * 4 {
        client.send(TEXT, br#"{"type":"ping"}"#).await;
        let mut frame = client.message().await.json();
        while frame["type"] != "pong" {
            cursors += u32::from(frame["type"] == "cursor");
            frame = client.message().await.json();
        }
        tokio::time::sleep(PING_INTERVAL / 4).await;
    }
    assert!(cursors >= 3, "{cursors}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed_after_the_write_timeout() {
    let mut server = Server::start(256);
    let begun = Instant::now();
    let client = server.connect(Encoding::Plain, None, None, 64);
    for _ in 0..40 {
        server.route();
    }
    let connection = client.connection;
    assert_eq!(
        connection.await.unwrap(),
        Closed::ByServer(CloseCode::SlowConsumer)
    );
    assert!(begun.elapsed() >= WRITE_TIMEOUT);
}

fn identity(device: u128) -> Identity {
    Identity {
        user: Uuid::from_u128(1).into(),
        device_id: Some(Uuid::from_u128(device)),
        expires: None,
    }
}

/// The look-up fails here: there is no database.
#[tokio::test(start_paused = true)]
async fn a_cursor_that_claims_to_know_of_a_revocation_has_the_identity_looked_up() {
    let mut server = Server::start(65_536);
    let mut deleted = server.connect(Encoding::V1, Some("1-1.6:6:"), Some(identity(7)), 65_536);
    server.revoke(7, 5);
    let now = Instant::now() + Duration::from_secs(1);
    server.router.complete_barrier(barrier(6), now.into_std());
    assert_eq!(deleted.message().await.json()["resumed"], true);
    assert_eq!(
        deleted.message().await.close_code(),
        CloseCode::TryAgainLater.code()
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_device_is_closed_and_the_user_s_other_devices_are_not() {
    let mut server = Server::start(65_536);
    let mut deleted = server.connect(Encoding::Plain, None, Some(identity(7)), 65_536);
    let mut other = server.connect(Encoding::Plain, None, Some(identity(8)), 65_536);
    server.revoke(7, 1);
    assert_eq!(
        deleted.frame().await.close_code(),
        CloseCode::Revoked.code()
    );
    server.route();
    assert_eq!(other.message().await.json()["id"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_gives_each_client_its_time_and_its_events_until_then() {
    let mut server = Server::start(65_536);
    let mut client = server.connect(Encoding::V1, None, None, 65_536);
    assert_eq!(client.message().await.json()["type"], "hello");
    // The first place in the row is at once: it is another client's.
    let _ = server.shared.drain.begin(10, 1, Duration::from_mins(1));
    let _ = server.shared.drain.next_delay();
    server.route();
    let (first, second) = (client.message().await.json(), client.message().await.json());
    let goaway = if first["type"] == "goaway" {
        &first
    } else {
        &second
    };
    assert_eq!(goaway["type"], "goaway", "{first} {second}");
    assert!(goaway["retry_after_ms"].as_u64().unwrap() <= 1_000);
    assert_eq!(
        client.message().await.close_code(),
        CloseCode::Restart.code()
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_resumes_from_the_replay_buffer_and_settles_at_the_next_barrier() {
    let mut server = Server::start(65_536);
    for _ in 0..3 {
        server.route();
        tokio::time::advance(Duration::from_secs(1)).await;
        server.complete_barrier();
    }
    server.route();
    let mut client = server.connect(Encoding::V1, Some("1-1.3:3:"), None, 65_536);
    let hello = client.message().await.json();
    assert_eq!(
        (&hello["resumed"], &hello["cursor"]),
        (&true.into(), &"1-1.3:3:".into())
    );
    let mut ids = Vec::new();
    for _ in 0..hello["replayed"].as_u64().unwrap() {
        ids.push(client.message().await.json()["id"].as_i64().unwrap());
    }
    assert_eq!(ids, [3, 4]);
    tokio::time::advance(Duration::from_secs(1)).await;
    server.complete_barrier();
    let cursor = client.message().await.json();
    assert_eq!(
        (&cursor["type"], &cursor["cursor"]),
        (&"cursor".into(), &"1-1.5:5:".into())
    );
}
