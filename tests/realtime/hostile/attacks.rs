//! The hostile clients, in a process of their own: the test's program, run for `attack_from_outside` alone.
//! It attacks until its standard input ends and then prints the number of attempts.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::judged_rounds;
use crate::support::soon;

const ATTACK_VARIABLE: &str = "HOSTILE_ATTACK";
const SERVER_VARIABLE: &str = "HOSTILE_SERVER";
const AWAKE_VARIABLE: &str = "HOSTILE_AWAKE";
/// How the outcome begins, among what the test harness prints.
const TRIED: &str = "tried ";

/// Attackers of one attack, each with a connection at a time, over and over.
pub const CONNECTIONS: usize = 100;
/// The most that one of them sends on a connection.
const SENT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Connects and says nothing.
    SilentConnections,
    /// A request's head, one byte after another.
    SlowHead,
    /// A request's head without an end.
    EndlessHead,
    /// Connects as often as it can, and keeps what it gets.
    TooManyConnections,
    /// A client must mask its frames.
    Unmasked,
    /// RSV2 and RSV3 mean nothing.
    ReservedBits,
    /// 0x3 means nothing.
    ReservedOpcode,
    /// A text that is none.
    InvalidUtf8,
    /// RSV1 without the extension that gives it a meaning.
    Compressed,
    /// A length of 2^62.
    Oversized,
    /// The beginning of a frame, and no more.
    HalfFrame,
    /// All but the end of the longest message, and all but the end of the longest frame.
    HoldsAll,
    /// A message of empty fragments without a last one.
    EndlessFragments,
    /// Pings as fast as they go.
    PingFlood,
    /// Asks, and reads no answer.
    NeverReads,
    /// Closes its sending side and keeps the connection.
    HalfClosed,
}

const ALL: [Attack; 16] = [
    Attack::SilentConnections,
    Attack::SlowHead,
    Attack::EndlessHead,
    Attack::TooManyConnections,
    Attack::Unmasked,
    Attack::ReservedBits,
    Attack::ReservedOpcode,
    Attack::InvalidUtf8,
    Attack::Compressed,
    Attack::Oversized,
    Attack::HalfFrame,
    Attack::HoldsAll,
    Attack::EndlessFragments,
    Attack::PingFlood,
    Attack::NeverReads,
    Attack::HalfClosed,
];

/// An attack that is under way.
pub struct Underway(Child);

impl Underway {
    /// Starts it, and waits until it has begun.
    pub async fn begin(attack: Attack, server: SocketAddr) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = if judged_rounds().is_some() {
            // Only what the others leave of their core.
            let mut idle = Command::new("chrt");
            idle.args(["--idle", "0"]).arg(program);
            idle
        } else {
            Command::new(program)
        };
        let mut child = command
            .args(["--exact", "hostile::attacks::attack_from_outside"])
            .args(["--ignored", "--nocapture"])
            .env(ATTACK_VARIABLE, format!("{attack:?}"))
            .env(SERVER_VARIABLE, server.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let begun = read_tried(child.stdout.as_mut().unwrap()).await;
        assert_eq!(begun, 0);
        Self(child)
    }

    /// Stops it and says how often it was tried.
    pub async fn end(mut self) -> usize {
        drop(self.0.stdin.take());
        let tried = read_tried(self.0.stdout.as_mut().unwrap()).await;
        soon("the attackers' end", self.0.wait()).await.unwrap();
        tried
    }
}

/// Keeps both cores awake, at idle priority. Waking a virtual processor may take its host milliseconds,
/// which would count as the server's.
pub struct Awake {
    #[allow(dead_code, reason = "killed when it is dropped")]
    children: [Child; 2],
}

impl Awake {
    pub fn keep() -> Self {
        let program = std::env::current_exe().unwrap();
        let children = ["0", "1"].map(|core| {
            Command::new("taskset")
                .args(["--cpu-list", core, "chrt", "--idle", "0"])
                .arg(&program)
                .args(["--exact", "hostile::attacks::stay_awake", "--ignored"])
                .env(AWAKE_VARIABLE, "1")
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        });
        Self { children }
    }
}

#[test]
#[ignore = "run by the others"]
fn stay_awake() {
    while std::env::var_os(AWAKE_VARIABLE).is_some() {
        std::thread::yield_now();
    }
}

/// Byte by byte: what follows is for the next one.
async fn read_tried(output: &mut tokio::process::ChildStdout) -> usize {
    let mut lines = BufReader::with_capacity(1, output).lines();
    loop {
        let line = soon("the attackers", lines.next_line()).await.unwrap();
        let line = line.expect("the attackers have failed");
        if let Some((_, tried)) = line.split_once(TRIED) {
            return tried.parse().unwrap();
        }
    }
}

#[tokio::test]
#[ignore = "run by the others"]
async fn attack_from_outside() {
    let Ok(name) = std::env::var(ATTACK_VARIABLE) else {
        return;
    };
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let server = std::env::var(SERVER_VARIABLE).unwrap().parse().unwrap();
    let attack = ALL.into_iter().find(|a| format!("{a:?}") == name).unwrap();
    let tried = Arc::new(AtomicUsize::new(0));
    let mut tasks = attack.begin(server, &tried);
    println!("{TRIED}0");
    let ended = || std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new());
    tokio::task::spawn_blocking(ended).await.unwrap().unwrap();
    tasks.shutdown().await;
    println!("{TRIED}{}", tried.load(Relaxed));
}

impl Attack {
    fn begin(self, server: SocketAddr, tried: &Arc<AtomicUsize>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let tried = Arc::clone(tried);
            tasks.spawn(async move {
                let mut kept = Vec::new();
                loop {
                    tried.fetch_add(1, Relaxed);
                    // What goes wrong is the server's defence.
                    if let Ok(stream) = Box::pin(self.once(server)).await {
                        kept.push(stream);
                    }
                    if self != Self::TooManyConnections {
                        kept.clear();
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        tasks
    }

    /// From the beginning of a connection to what can be done with it.
    async fn once(self, server: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse().unwrap())?;
        let mut stream = socket.connect(server).await?;
        match self {
            Self::SilentConnections => return ended(stream).await,
            Self::SlowHead => {
                for byte in head().as_bytes().iter().cycle() {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Self::EndlessHead => {
                stream.write_all(b"GET /ws HTTP/1.1\r\n").await?;
                return flood(stream, b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await;
            }
            _ => {}
        }
        stream.write_all(head().as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        match self {
            Self::Unmasked => stream.write_all(&[0x81, 2, b'{', b'}']).await?,
            Self::ReservedBits => stream.write_all(&masked(0xb1, b"{}")).await?,
            Self::ReservedOpcode => stream.write_all(&masked(0x83, b"{}")).await?,
            Self::InvalidUtf8 => stream.write_all(&masked(0x81, &[0xff, 0xfe])).await?,
            Self::Compressed => stream.write_all(&masked(0xc1, &[7; 100])).await?,
            Self::Oversized => {
                let length = (1_u64 << 62).to_be_bytes();
                stream
                    .write_all(&[&[0x81, 0xff][..], &length, &[0; 4]].concat())
                    .await?;
            }
            Self::HalfFrame => {
                let beginning = [0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0, b'{'];
                stream.write_all(&beginning).await?;
            }
            Self::HoldsAll => {
                let part = vec![0; 65_000];
                let header = [0x02, 0xfe, 0xfd, 0xe8, 0, 0, 0, 0];
                stream.write_all(&[&header[..], &part].concat()).await?;
                let header = [0x80, 0xfe, 0x02, 0x18, 0, 0, 0, 0];
                stream
                    .write_all(&[&header[..], &part[..500]].concat())
                    .await?;
            }
            Self::EndlessFragments => {
                stream.write_all(&masked(0x01, b"{")).await?;
                return flood(stream, &masked(0x00, b"")).await;
            }
            Self::PingFlood => return flood(stream, &masked(0x89, b"ping")).await,
            Self::NeverReads => {
                let ask = masked(0x81, br#"{"type":"ping"}"#);
                // Until the server has had enough; it fails then.
                loop {
                    stream.write_all(&ask).await?;
                }
            }
            Self::HalfClosed => stream.shutdown().await?,
            _ => return Ok(stream),
        }
        ended(stream).await
    }
}

fn head() -> String {
    format!(
        "GET /ws?user_id={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        Uuid::new_v4()
    )
}

/// A short frame with a mask of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = 0x80 | u8::try_from(payload.len()).unwrap();
    [&[first, length, 0, 0, 0, 0][..], payload].concat()
}

/// Says the same until the server has had enough.
async fn flood(mut stream: TcpStream, part: &[u8]) -> std::io::Result<TcpStream> {
    let many = part.repeat(100);
    for _ in 0..SENT_BYTES_MAX / many.len() {
        stream.write_all(&many).await?;
    }
    ended(stream).await
}

/// Waits for the server to end it.
async fn ended(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(stream)
}
