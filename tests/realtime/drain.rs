//! A rolling restart: the clients of a draining server move to another server at the configured rate and
//! miss nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use uuid::Uuid;

use crate::support::{Server, soon, until};

const CLIENTS: usize = 5_000;
const PER_SECOND: u32 = 500;
/// Messages to each user before the last one.
const MESSAGES: usize = 6;
/// The drain's own deadline: long enough for a machine that is busy with other tests.
const DRAIN_DEADLINE_MS: u32 = 600_000;

/// What a client has received, over all its connections.
#[derive(Default)]
struct Seen {
    cursor: Option<String>,
    ids: HashSet<i64>,
    messages: usize,
    repeated: usize,
    /// When the client connected to the other server.
    moved: Option<Instant>,
    /// The time named by the `goaway` frame, and the delay that the frame asked for.
    goaway: Option<(Instant, Duration)>,
}

impl Seen {
    /// Follows one connection to its end, or to the last message.
    async fn follow(&mut self, server: std::net::SocketAddr, user: Uuid, gate: &Semaphore) {
        let since = self.cursor.as_ref();
        let since = since.map_or(String::new(), |cursor| format!("&since={cursor}"));
        let url = format!("ws://{server}/ws?user_id={user}{since}");
        let mut request =
            tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(url)
                .unwrap();
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", "hushnet.v1".parse().unwrap());
        // Thousands of buffers of the default size would be half a gigabyte.
        let small = WebSocketConfig::default().read_buffer_size(1_024);
        let permit = gate.acquire().await.unwrap();
        let (mut socket, _) = connect_async_with_config(request, Some(small), false)
            .await
            .unwrap();
        drop(permit);
        while self.messages <= MESSAGES {
            match soon("a frame", socket.next()).await {
                Some(Ok(Message::Text(text))) => self.take(&text),
                Some(Ok(Message::Close(close))) => {
                    let code = u16::from(close.unwrap().code);
                    assert!(code == 1012 || code == 1013, "{code}");
                    return;
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
            let due = self.goaway.is_some_and(|(at, _)| Instant::now() >= at);
            if due && self.moved.is_none() {
                return;
            }
        }
    }

    fn take(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap();
        if frame["type"] == "goaway" {
            // No other test receives this frame. The other frames are checked in tests with few clients.
            crate::schema::assert_valid_frame(text);
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        match frame["type"].as_str().unwrap() {
            "message" if self.ids.insert(frame["id"].as_i64().unwrap()) => self.messages += 1,
            "message" => self.repeated += 1,
            "goaway" => {
                let after = Duration::from_millis(frame["retry_after_ms"].as_u64().unwrap());
                self.goaway = Some((Instant::now() + after, after));
            }
            "hello" | "cursor" => {}
            other => panic!("unexpected {other}: {text}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "one scenario, in the order of time")]
async fn a_rolling_restart_of_5000_clients_loses_nothing_and_keeps_its_rate() {
    rlimit::increase_nofile_limit(4 * CLIENTS as u64).unwrap();
    let mut old = Server::start_with(|config| {
        config.drain_clients_per_second = PER_SECOND;
        config.drain_deadline_ms = DRAIN_DEADLINE_MS;
    })
    .await;
    let new = Server::start_on(old.database().clone(), |_| {}).await;
    let pool = old.db().await;
    let users: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO users (username) SELECT gen_random_uuid() FROM generate_series(1, $1) \
         RETURNING id",
    )
    .bind(i32::try_from(CLIENTS).unwrap())
    .fetch_all(&pool)
    .await
    .unwrap();

    let gate = Arc::new(Semaphore::new(64));
    let (from, to) = (old.address(), new.address());
    let moved = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for user in users {
        let (gate, moved) = (Arc::clone(&gate), Arc::clone(&moved));
        clients.spawn(async move {
            let mut seen = Seen::default();
            seen.follow(from, user, &gate).await;
            let (at, _) = seen.goaway.expect("no goaway before the close");
            tokio::time::sleep_until(at).await;
            seen.moved = Some(Instant::now());
            moved.fetch_add(1, Relaxed);
            // The new server may close with a code that invites the client to come back.
            while seen.messages <= MESSAGES {
                seen.follow(to, user, &gate).await;
            }
            seen
        });
    }
    old.until_metric("hushnet_connections_open", CLIENTS as f64)
        .await;
    let write = async || {
        sqlx::query(
            "INSERT INTO messages (logical_msg_id, to_user_id, header, ciphertext) \
             SELECT 'm', id, '{}', 'c' FROM users",
        )
        .execute(&pool)
        .await
        .unwrap();
    };
    write().await;
    let begun = Instant::now();
    old.begin_stop();
    until("it says that it drains", async || {
        let ready = old.get("/readyz").await;
        ready.status == 503 && ready.json()["error"]["code"] == "draining"
    })
    .await;
    let refused = old.get(&format!("/ws?user_id={}", Uuid::new_v4())).await;
    assert_eq!(
        (refused.status, refused.headers["retry-after"].as_str()),
        (503, "1")
    );
    // The messages are spread over the move: some clients are at the old server, some at the new one.
    for number in 1..MESSAGES {
        write().await;
        let wanted = number * CLIENTS / MESSAGES;
        until("more clients have moved", async || {
            moved.load(Relaxed) >= wanted
        })
        .await;
    }
    old.stopped().await.unwrap();
    let took = begun.elapsed();
    write().await;

    let seen = clients.join_all().await;
    assert!(
        seen.iter().all(|seen| seen.messages == MESSAGES + 1),
        "something is lost"
    );
    let repeated: usize = seen.iter().map(|seen| seen.repeated).sum();
    let planned = busiest_second(seen.iter().map(|seen| seen.goaway.unwrap().1));
    let arrived = busiest_second(seen.iter().map(|seen| seen.moved.unwrap() - begun));
    println!(
        "{CLIENTS} clients moved in {took:?}; the busiest second had {arrived}, planned {planned}; \
         {repeated} repeats"
    );
    // Only the plan is asserted: when a client wakes up depends on the machine.
    assert!(
        planned <= PER_SECOND as usize + 1,
        "{planned} planned in one second"
    );
    let least = CLIENTS as f64 / f64::from(PER_SECOND) * 0.9;
    assert!(took.as_secs_f64() > least, "{took:?}");
}

fn busiest_second(times: impl Iterator<Item = Duration>) -> usize {
    let mut times: Vec<_> = times.collect();
    times.sort();
    let within = |first: usize| {
        let end = times[first] + Duration::from_secs(1);
        times[first..].partition_point(|at| *at < end)
    };
    (0..times.len()).map(within).max().unwrap()
}

/// Clients of the specification do not know `goaway`: the server closes them, one after another, at the
/// same rate.
#[tokio::test]
async fn clients_of_the_specification_are_closed_one_after_another() {
    const STEP: Duration = Duration::from_millis(50);
    /// The clock of the connections ticks every 50 ms, and a moment is rounded down to a tick.
    const ROUNDING: Duration = Duration::from_millis(100);
    let mut server = Server::start_with(|config| {
        config.drain_clients_per_second = 20;
        config.drain_deadline_ms = DRAIN_DEADLINE_MS;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(server.connect(Uuid::new_v4()).await);
    }
    let begun = Instant::now();
    server.begin_stop();
    let closings = clients.iter_mut().map(|client| async {
        assert_eq!(client.close_code().await, 1012);
        begun.elapsed()
    });
    let mut closed = futures_util::future::join_all(closings).await;
    closed.sort();
    for (number, at) in (0_u32..).zip(&closed) {
        assert!(*at + ROUNDING >= STEP * number, "{number}: {closed:?}");
    }
    server.stopped().await.unwrap();
}
