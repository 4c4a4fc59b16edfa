//! Stands between nodes and a broker, and breaks what passes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::error::BrokerError;
use crate::faults::{Counters, FaultCounts, Faults, Injector};
use crate::frames::{Frame, Splitter};
use crate::options::BrokerKind;
use crate::port;

const READ_BYTES: usize = 64 * 1024;
/// What the kernel takes from the broker while a connection is frozen: little, so that the broker soon sees a node that does
/// not read.
const RECEIVE_BUFFER_BYTES: u32 = 128 * 1024;
/// Connections at a time; more are closed.
const CONNECTIONS_MAX: usize = 1024;

/// A proxy without TLS on a port of its own. Dropping it closes its connections.
#[derive(Debug)]
pub struct BrokerProxy {
    port: u16,
    control: watch::Sender<Control>,
    counters: Arc<Counters>,
    accepting: JoinHandle<()>,
}

/// Which bytes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the broker to the node.
    ToNode,
    /// From the node to the broker.
    ToBroker,
    /// Both.
    Both,
}

impl Direction {
    fn includes(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

/// What all connections obey.
#[derive(Debug, Clone, Copy, Default)]
struct Control {
    /// The broker's port: where new connections lead.
    broker: u16,
    faults: Faults,
    to_node: Flow,
    to_broker: Flow,
    refuses: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    is_frozen: bool,
    /// How often it was cut: a connection ends when this is more than at its beginning.
    cuts: u64,
}

impl Control {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToNode => self.to_node,
            _ => self.to_broker,
        }
    }

    fn change(&mut self, direction: Direction, change: impl Fn(&mut Flow)) {
        if direction.includes(Direction::ToNode) {
            change(&mut self.to_node);
        }
        if direction.includes(Direction::ToBroker) {
            change(&mut self.to_broker);
        }
    }
}

impl BrokerProxy {
    /// Starts a proxy to the broker on this port of 127.0.0.1. Without faults, until [`BrokerProxy::inject`]. The faults of
    /// the n-th connection follow from the seed, n, and the order of its messages.
    pub async fn start(kind: BrokerKind, broker: u16, seed: u64) -> Result<Self, BrokerError> {
        Self::launch(Some(kind), broker, seed).await
    }

    /// Starts a proxy that looks at no message: it cuts and freezes whatever speaks through it, as a route between servers.
    pub async fn plain(port: u16) -> Result<Self, BrokerError> {
        Self::launch(None, port, 0).await
    }

    async fn launch(kind: Option<BrokerKind>, broker: u16, seed: u64) -> Result<Self, BrokerError> {
        let port = port::free()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(BrokerError::io("listen on", Path::new("127.0.0.1")))?;
        let (control, observed) = watch::channel(Control {
            broker,
            ..Control::default()
        });
        let counters = Arc::new(Counters::default());
        let accepting = Accepting {
            kind,
            seed,
            control: observed,
            counters: Arc::clone(&counters),
        };
        Ok(Self {
            port,
            control,
            counters,
            accepting: tokio::spawn(accepting.run(listener)),
        })
    }

    /// The port, of 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets what happens to messages from now on; `Faults::default()` ends it.
    pub fn inject(&self, faults: Faults) {
        self.control.send_modify(|control| control.faults = faults);
    }

    /// What has happened.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.counters.read()
    }

    /// Lets no byte pass in this direction, on the connections that there are and on new ones, until
    /// [`BrokerProxy::thaw`]. Nothing is lost.
    pub fn freeze(&self, direction: Direction) {
        self.control
            .send_modify(|control| control.change(direction, |flow| flow.is_frozen = true));
    }

    /// Lets bytes pass again, those that have waited first.
    pub fn thaw(&self, direction: Direction) {
        self.control
            .send_modify(|control| control.change(direction, |flow| flow.is_frozen = false));
    }

    /// Ends this direction of the connections that there are: the receiver sees the end of the stream. With
    /// [`Direction::Both`] the connections are closed.
    pub fn cut(&self, direction: Direction) {
        self.control
            .send_modify(|control| control.change(direction, |flow| flow.cuts += 1));
    }

    /// Leads new connections to the broker on this port, as a name that is given another address. Those that there are stay.
    pub fn lead_to(&self, port: u16) {
        self.control.send_modify(|control| control.broker = port);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.control
            .send_modify(|control| control.refuses = refuses);
    }
}

impl Drop for BrokerProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Accepting {
    /// `None`: messages are not looked at.
    kind: Option<BrokerKind>,
    seed: u64,
    control: watch::Receiver<Control>,
    counters: Arc<Counters>,
}

impl Accepting {
    async fn run(self, listener: TcpListener) {
        // Dropped with this task, and then ends all of its own.
        let mut connections = JoinSet::new();
        let mut accepted: u64 = 0;
        loop {
            let Ok((node, _)) = listener.accept().await else {
                continue;
            };
            while connections.try_join_next().is_some() {}
            if self.control.borrow().refuses || connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            let seed = self.seed.wrapping_add(accepted);
            accepted += 1;
            let broker = self.control.borrow().broker;
            let connection = connect(node, broker, self.kind, seed);
            let control = self.control.clone();
            let counters = Arc::clone(&self.counters);
            connections.spawn(async move {
                if let Some((to_broker, to_node)) = connection.await {
                    tokio::join!(
                        to_broker.run(control.clone(), &counters),
                        to_node.run(control, &counters)
                    );
                }
            });
        }
    }
}

/// `None` if the broker cannot be reached: the node's connection is closed.
async fn connect(
    node: TcpStream,
    broker: u16,
    kind: Option<BrokerKind>,
    seed: u64,
) -> Option<(Pump, Pump)> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).ok()?;
    let broker = socket.connect((Ipv4Addr::LOCALHOST, broker).into());
    let broker = broker.await.ok()?;
    node.set_nodelay(true).ok()?;
    broker.set_nodelay(true).ok()?;
    let (from_node, to_node) = node.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let to_broker = Pump {
        direction: Direction::ToBroker,
        reader: from_node,
        writer: to_broker,
        messages: None,
    };
    let to_node = Pump {
        direction: Direction::ToNode,
        reader: from_broker,
        writer: to_node,
        messages: kind.map(|kind| (Splitter::new(kind), Injector::new(seed))),
    };
    Some((to_broker, to_node))
}

/// One direction of one connection.
struct Pump {
    direction: Direction,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// Where messages are broken.
    messages: Option<(Splitter, Injector)>,
}

impl Pump {
    async fn run(mut self, mut control: watch::Receiver<Control>, counters: &Counters) {
        let cuts = control.borrow().flow(self.direction).cuts;
        let mut buffer = vec![0; READ_BYTES];
        let mut out = Vec::new();
        loop {
            let now = *control.borrow_and_update();
            let flow = now.flow(self.direction);
            if flow.cuts > cuts {
                break;
            }
            let due = self
                .messages
                .as_ref()
                .and_then(|(_, injector)| injector.deadline());
            tokio::select! {
                changed = control.changed() => if changed.is_err() { break },
                read = self.reader.read(&mut buffer), if !flow.is_frozen => match read {
                    Ok(length @ 1..) => self.received(&buffer[..length], &now.faults, counters, &mut out),
                    Ok(_) | Err(_) => break,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if !flow.is_frozen && due.is_some() => {
                    if let Some((_, injector)) = &mut self.messages {
                        injector.due(counters, Instant::now(), &mut out);
                    }
                }
            }
            let direction = self.direction;
            let is_cut = |control: &Control| control.flow(direction).cuts > cuts;
            tokio::select! {
                written = self.writer.write_all(&out) => if written.is_err() { break },
                _ = control.wait_for(is_cut) => break,
            }
            out.clear();
        }
        // The receiver sees the end of the stream.
        let _ = self.writer.shutdown().await;
    }

    fn received(&mut self, bytes: &[u8], faults: &Faults, counters: &Counters, out: &mut Vec<u8>) {
        let Some((splitter, injector)) = &mut self.messages else {
            out.extend_from_slice(bytes);
            return;
        };
        splitter.feed(bytes);
        let now = Instant::now();
        while let Some(frame) = splitter.next() {
            match frame {
                Frame::Message(message) => injector.message(faults, counters, now, message, out),
                Frame::Other(bytes) => out.extend_from_slice(&bytes),
            }
        }
    }
}
