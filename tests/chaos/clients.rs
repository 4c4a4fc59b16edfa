//! Clients of every habit: some stay connected, some disconnect, come back and stall.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hushnet_testkit::wait::deadline;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::ledger::Ledger;
use crate::library::{Library, Todo};

/// Small, so that a client that does not read is noticed soon. Not for those that always read: once such
/// a window has been shut, Linux may open it only at every expiry of the sender's persist timer (`ss -tio`
/// shows it), which is 54 KiB/s, and less than what a user gets under full load.
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);
/// A client gives up an attempt to connect after this time, and tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A client's time for the first frame. A service that cannot read the log answers earlier.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);
/// Time without an event, once the last expected one is there, that ends a client.
const QUIET: Duration = Duration::from_millis(200);

/// How a client behaves while the writers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// As the specification has it: no cursor; it stays.
    Plain,
    /// v1, and stays.
    Faithful,
    /// v1; disconnects without a close frame, comes back within `away_max`, and stalls.
    Restless {
        away_max: Duration,
        stall_max: Duration,
        /// Taken now and then while it reads.
        read_pause: Duration,
    },
}

/// The scenario's phase, as the clients know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Storm,
    /// No more misbehaviour: each client stays until it has its user's last message.
    Calm {
        /// By user.
        last_messages: Arc<Vec<usize>>,
        give_up_at: Instant,
    },
}

/// A client that has ended.
#[derive(Debug)]
pub struct Finished {
    pub habit: Habit,
    pub library: Library,
    /// Whether its last connection lasted to the end.
    pub cuts: usize,
    /// Codes that do not invite it to come back.
    pub refusals: Vec<String>,
}

/// A device.
#[derive(Debug)]
pub struct Client {
    pub habit: Habit,
    /// Of the servers; a v1 client takes another of them each time.
    pub addresses: Arc<[SocketAddr]>,
    pub database: PgConnectOptions,
    pub ledger: Arc<Ledger>,
    pub phase: watch::Receiver<Phase>,
    library: Library,
    rng: StdRng,
    /// The server of the last connection.
    server: Option<usize>,
    cuts: usize,
    refusals: Vec<String>,
}

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// The other side or the network ended it.
    Cut,
    /// The client's own habit.
    Vanished,
    /// All has been received.
    Done,
}

impl Client {
    pub fn new(
        habit: Habit,
        addresses: Arc<[SocketAddr]>,
        database: PgConnectOptions,
        ledger: Arc<Ledger>,
        phase: watch::Receiver<Phase>,
        library: Library,
        seed: u64,
    ) -> Self {
        Self {
            habit,
            addresses,
            database,
            ledger,
            phase,
            library,
            rng: StdRng::seed_from_u64(seed),
            server: None,
            cuts: 0,
            refusals: Vec::new(),
        }
    }

    /// Connects for the first time; the client misses nothing from here on.
    pub async fn begin(mut self) -> (Self, WebSocketStream<TcpStream>) {
        let joining = async {
            loop {
                let socket = self.connect().await;
                if let Some(mut socket) = socket
                    && self.is_greeted(&mut socket).await
                {
                    return socket;
                }
                sleep(RETRY).await;
            }
        };
        let socket = timeout(deadline(), joining).await.unwrap();
        (self, socket)
    }

    /// Lives on until the end of the scenario.
    pub async fn live(mut self, first: WebSocketStream<TcpStream>) -> Finished {
        let mut socket = Some(first);
        loop {
            let over = match socket.take() {
                Some(socket) => self.serve(socket).await,
                None if self.has_given_up() => Over::Done,
                None => {
                    match self.connect().await {
                        Some(connected) => socket = Some(connected),
                        None => sleep(RETRY).await,
                    }
                    continue;
                }
            };
            match over {
                Over::Done => break,
                Over::Cut => {
                    self.cuts += 1;
                    sleep(RETRY).await;
                }
                Over::Vanished => self.stay_away().await,
            }
        }
        Finished {
            habit: self.habit,
            library: self.library,
            cuts: self.cuts,
            refusals: self.refusals,
        }
    }

    async fn connect(&mut self) -> Option<WebSocketStream<TcpStream>> {
        let v1 = self.habit != Habit::Plain;
        let server = self.next_server(v1);
        let address = self.addresses[server];
        let request = self.library.request(address, v1);
        let connecting = async {
            let socket = TcpSocket::new_v4().ok()?;
            if matches!(self.habit, Habit::Restless { .. }) {
                socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).ok()?;
            }
            let stream = socket.connect(address).await.ok()?;
            Some(client_async(request, stream).await.ok()?.0)
        };
        let socket = timeout(CONNECT_TIMEOUT, connecting).await.ok().flatten()?;
        self.library.connected(server);
        Some(socket)
    }

    /// Another server each time, if there are some.
    fn next_server(&mut self, v1: bool) -> usize {
        let servers = self.addresses.len();
        if !v1 {
            return servers - 1;
        }
        let next = match self.server {
            Some(last) if servers > 1 => (last + self.rng.random_range(1..servers)) % servers,
            _ => self.rng.random_range(0..servers),
        };
        self.server = Some(next);
        next
    }

    /// A v1 client knows from the first frame that it misses nothing.
    async fn is_greeted(&mut self, socket: &mut WebSocketStream<TcpStream>) -> bool {
        if self.habit == Habit::Plain {
            return true;
        }
        match timeout(HELLO_TIMEOUT, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => {
                self.library.take(&text, &self.ledger);
                true
            }
            _ => false,
        }
    }

    async fn serve(&mut self, mut socket: WebSocketStream<TcpStream>) -> Over {
        let mut phase = self.phase.clone();
        let mut mood = self.next_mood();
        loop {
            let (quiet, restless) = (self.quiet_from(), self.is_restless());
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        if self.library.take(&text, &self.ledger) == Todo::Refetch {
                            self.refetch().await;
                        }
                        if let (true, Habit::Restless { read_pause, .. }) = (restless, self.habit)
                            && self.rng.random_bool(0.1)
                        {
                            sleep(read_pause).await;
                        }
                    }
                    Some(Ok(Message::Close(Some(close)))) => {
                        let code = u16::from(close.code);
                        if ![1012, 1013, 4008, 4009].contains(&code) {
                            self.refusals.push(format!("{code} {}", close.reason));
                        }
                        return Over::Cut;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Over::Cut,
                },
                () = sleep_until(mood), if restless => {
                    let Habit::Restless { stall_max, .. } = self.habit else { continue };
                    // Every third time it only stops reading.
                    if !self.rng.random_bool(0.3) {
                        return Over::Vanished;
                    }
                    sleep(self.up_to(stall_max)).await;
                    mood = self.next_mood();
                }
                () = sleep_until(quiet.unwrap_or_else(Instant::now)), if quiet.is_some() => {
                    return Over::Done;
                }
                _ = phase.changed() => {}
            }
        }
    }

    fn next_mood(&mut self) -> Instant {
        Instant::now() + self.up_to(Duration::from_millis(1_200))
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.rng.random_range(0.0..1.0))
    }

    fn is_restless(&self) -> bool {
        matches!(self.habit, Habit::Restless { .. }) && *self.phase.borrow() == Phase::Storm
    }

    async fn stay_away(&mut self) {
        let Habit::Restless { away_max, .. } = self.habit else {
            return;
        };
        let away = self.up_to(away_max);
        let mut phase = self.phase.clone();
        tokio::select! {
            () = sleep(away) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Storm) => {}
        }
    }

    /// When the client may go, if nothing comes until then.
    fn quiet_from(&self) -> Option<Instant> {
        let phase = self.phase.borrow();
        let Phase::Calm {
            last_messages,
            give_up_at,
        } = &*phase
        else {
            return None;
        };
        if !self.library.has(last_messages[self.library.user]) {
            return Some(*give_up_at);
        }
        // Cursors may go on coming: only events count.
        let last = self.library.arrivals.last();
        Some(last.map_or_else(Instant::now, |last| Instant::from_std(last.at) + QUIET))
    }

    fn has_given_up(&self) -> bool {
        match &*self.phase.borrow() {
            Phase::Calm { give_up_at, .. } => Instant::now() > *give_up_at,
            Phase::Storm => false,
        }
    }

    /// The state as it is now: what a client fetches after a reset.
    async fn refetch(&mut self) {
        let fetched = async {
            loop {
                if let Ok(mut connection) = self.database.connect().await
                    && let Ok(stored) = self.ledger.stored(&mut connection).await
                {
                    return stored;
                }
                sleep(RETRY).await;
            }
        };
        let stored = timeout(deadline(), fetched).await.unwrap();
        self.library.refetched.extend(stored);
    }
}
