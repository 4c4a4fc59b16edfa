//! Every connection, in one epoll loop on the calling thread.
//!
//! Owns the sockets and what little each needs; hands on what is in data frames and knows nothing of
//! events. A handshake that is refused or reset is tried again and counted; one that is answered with
//! anything but 101, and a frame that is no frame, end the measurement with an error. A connection
//! that ends after its handshake is counted and left closed: what it misses will be told as lost.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::frame::{self, Frame};
use crate::handshake::{self, Caller};
use crate::ports::Ports;
use crate::report::{histogram, micros};
use crate::target::Target;

const EVENTS_PER_TURN: usize = 1_024;
/// Connections begun in one turn, so that those begun before get on meanwhile.
const DIALS_PER_TURN: usize = 128;
/// One buffer for all reads.
const READ_BYTES: usize = 64 << 10;
/// Before a handshake that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Connecting,
    /// The request is sent.
    Asking,
    Open,
}

#[derive(Debug)]
struct Client {
    caller: Caller,
    state: State,
    stream: Option<TcpStream>,
    /// When the connection was begun.
    begun: Instant,
    /// An incomplete head or frame; it has no allocation otherwise.
    partial: Vec<u8>,
}

/// What happened to the connections.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Handshakes that were tried again.
    pub(crate) retried: u64,
    /// Connections that the server ended.
    pub(crate) ended_by_server: u64,
    /// From the beginning of a connection to its 101, in microseconds.
    pub(crate) handshake_us: Histogram<u64>,
}

#[derive(Debug)]
pub(crate) struct Clients {
    /// The connections take turns.
    targets: Vec<Target>,
    ports: Ports,
    poll: Poll,
    events: Events,
    /// What `events` said; it is worked off while the connections change.
    ready: Vec<Ready>,
    all: Vec<Client>,
    /// Clients that are yet to be connected, and those that failed with when to try them again.
    waiting: VecDeque<usize>,
    failed: VecDeque<(Instant, usize)>,
    opening: usize,
    opening_max: usize,
    open: usize,
    buffer: Vec<u8>,
    pub(crate) counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Ready {
    client: usize,
    writable: bool,
    /// The other side has ended; reading on is the way to know.
    ended: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        Self {
            client: event.token().0,
            writable: event.is_writable(),
            ended: event.is_read_closed() || event.is_error(),
        }
    }
}

impl Clients {
    /// Without connections; at most `opening_max` handshakes will be in flight.
    pub(crate) fn new(target: Target, sources: u8, opening_max: usize) -> anyhow::Result<Self> {
        Ok(Self {
            targets: vec![target],
            ports: Ports::new(sources),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            ready: Vec::with_capacity(EVENTS_PER_TURN),
            all: Vec::new(),
            waiting: VecDeque::new(),
            failed: VecDeque::new(),
            opening: 0,
            opening_max: opening_max.max(1),
            open: 0,
            buffer: vec![0; READ_BYTES],
            counts: Counts {
                retried: 0,
                ended_by_server: 0,
                handshake_us: histogram(),
            },
        })
    }

    /// Every second connection is to this server instead.
    pub(crate) fn beside(&mut self, target: Target) {
        self.targets.push(target);
    }

    fn target(&self, index: usize) -> &Target {
        &self.targets[index % self.targets.len()]
    }

    /// For another socket that is to wake the loop; its token is to be `Token(usize::MAX)`.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Has these connect; the index that each gets is its place among all since the last `clear`.
    pub(crate) fn connect(&mut self, callers: impl IntoIterator<Item = Caller>) {
        for caller in callers {
            self.waiting.push_back(self.all.len());
            self.all.push(Client {
                caller,
                state: State::Closed,
                stream: None,
                begun: Instant::now(),
                partial: Vec::new(),
            });
        }
    }

    /// Drops all connections and forgets them.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.waiting.clear();
        self.failed.clear();
        (self.opening, self.open) = (0, 0);
    }

    /// Admits another number of handshakes in flight from now on.
    pub(crate) fn limit_opening(&mut self, opening_max: usize) {
        self.opening_max = opening_max.max(1);
    }

    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Whether no handshake is in flight or yet to be begun.
    pub(crate) fn settled(&self) -> bool {
        self.opening == 0 && self.waiting.is_empty() && self.failed.is_empty()
    }

    /// Waits until something happens, but no longer than `wait`, and works it off. `on_data` gets a
    /// client's index, a data frame's payload and when it was read.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        on_data: &mut impl FnMut(usize, &[u8], Instant) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let wait = if self.dial()? { Duration::ZERO } else { wait };
        let wait = if self.failed.is_empty() {
            wait
        } else {
            wait.min(RETRY_AFTER)
        };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let mut ready = mem::take(&mut self.ready);
        let mut buffer = mem::take(&mut self.buffer);
        ready.extend(self.events.iter().map(Ready::from));
        let done = ready
            .iter()
            .try_for_each(|ready| self.progress(*ready, &mut buffer, on_data));
        ready.clear();
        (self.ready, self.buffer) = (ready, buffer);
        done
    }

    /// Begins connections as long as there are places; says whether there is more to begin at once.
    fn dial(&mut self) -> anyhow::Result<bool> {
        while let Some((at, client)) = self.failed.front().copied() {
            if at > Instant::now() {
                break;
            }
            self.failed.pop_front();
            self.waiting.push_back(client);
        }
        for _ in 0..DIALS_PER_TURN {
            if self.opening >= self.opening_max {
                return Ok(false);
            }
            let Some(index) = self.waiting.pop_front() else {
                return Ok(false);
            };
            self.begin(index)?;
        }
        Ok(!self.waiting.is_empty())
    }

    fn begin(&mut self, index: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let address = self.target(index).address;
        let mut stream = match self.ports.connect(address) {
            Ok(stream) => stream,
            Err(error) => return self.retry(index, &error),
        };
        self.poll.registry().register(
            &mut stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let client = &mut self.all[index];
        client.stream = Some(stream);
        client.state = State::Connecting;
        client.begun = begun;
        self.opening += 1;
        Ok(())
    }

    fn progress(
        &mut self,
        ready: Ready,
        buffer: &mut [u8],
        on_data: &mut impl FnMut(usize, &[u8], Instant) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let index = ready.client;
        // Not so for the source of events, which only wakes the loop.
        let Some(client) = self.all.get_mut(index) else {
            return Ok(());
        };
        if client.state == State::Connecting {
            if !ready.writable && !ready.ended {
                return Ok(());
            }
            let target = &self.targets[index % self.targets.len()];
            if let Err(error) = ask(client, target) {
                return self.failed_handshake(index, &error);
            }
        }
        loop {
            let client = &mut self.all[index];
            let Some(stream) = client.stream.as_mut() else {
                return Ok(());
            };
            match stream.read(buffer) {
                Ok(0) => return self.ended(index, &ErrorKind::ConnectionReset.into()),
                Ok(read) => {
                    self.take(index, &buffer[..read], on_data)?;
                    // Less than there was place for: there is no more, and what comes wakes the loop.
                    if read < buffer.len() && !ready.ended {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.ended(index, &error),
            }
        }
    }

    /// What was read from a connection.
    fn take(
        &mut self,
        index: usize,
        read: &[u8],
        on_data: &mut impl FnMut(usize, &[u8], Instant) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        let client = &mut self.all[index];
        let mut joined = mem::take(&mut client.partial);
        let mut data = if joined.is_empty() {
            read
        } else {
            joined.extend_from_slice(read);
            joined.as_slice()
        };
        if client.state == State::Asking {
            let Some(head) = handshake::response(data)? else {
                client.partial = data.to_vec();
                return Ok(());
            };
            data = &data[head..];
            client.state = State::Open;
            self.opening -= 1;
            self.open += 1;
            self.counts
                .handshake_us
                .saturating_record(micros(now - client.begun));
        }
        let mut closing = false;
        while let Some((frame, length)) = frame::next(data)? {
            match frame {
                Frame::Data(payload) => on_data(index, payload, now)?,
                Frame::Ping(payload) => send(client, &frame::pong(payload)),
                Frame::Pong => {}
                Frame::Close => closing = true,
            }
            data = &data[length..];
        }
        client.partial = data.to_vec();
        if closing {
            self.ended(index, &ErrorKind::ConnectionReset.into())?;
        }
        Ok(())
    }

    /// The connection is no more.
    fn ended(&mut self, index: usize, error: &io::Error) -> anyhow::Result<()> {
        let client = &mut self.all[index];
        if client.state != State::Open {
            return self.failed_handshake(index, error);
        }
        client.stream = None;
        client.state = State::Closed;
        client.partial = Vec::new();
        self.open -= 1;
        self.counts.ended_by_server += 1;
        Ok(())
    }

    fn failed_handshake(&mut self, index: usize, error: &io::Error) -> anyhow::Result<()> {
        let client = &mut self.all[index];
        client.stream = None;
        client.state = State::Closed;
        client.partial = Vec::new();
        self.opening -= 1;
        self.retry(index, error)
    }

    fn retry(&mut self, index: usize, error: &io::Error) -> anyhow::Result<()> {
        use ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, TimedOut,
        };
        match error.kind() {
            ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut => {
                self.counts.retried += 1;
                self.failed.push_back((Instant::now() + RETRY_AFTER, index));
                Ok(())
            }
            ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => bail!(
                "no port is left for a connection ({error}): give more --sources, or wait a minute"
            ),
            _ => bail!("connecting to {}: {error}", self.target(index).address),
        }
    }
}

/// Sends the request, now that the connection is there.
fn ask(client: &mut Client, target: &Target) -> io::Result<()> {
    let Some(stream) = client.stream.as_mut() else {
        return Ok(());
    };
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let request = handshake::request(target, &client.caller);
    // A new socket's buffer has place for a few hundred bytes.
    stream.write_all(request.as_bytes())?;
    client.state = State::Asking;
    Ok(())
}

/// Sends a small frame. When there is no place for it, or no connection, reading will show.
fn send(client: &mut Client, frame: &[u8]) {
    if let Some(stream) = client.stream.as_mut() {
        let _ = stream.write(frame);
    }
}

/// Raises the limit of open files and makes sure that so many fit, beside what else is open.
pub(crate) fn ensure_descriptors(connections: usize) -> anyhow::Result<()> {
    /// For epoll, the injector, the database's connections.
    const SPARE: u64 = 64;
    let limit = rlimit::increase_nofile_limit(u64::MAX).context("the limit of open files")?;
    let needed = connections as u64 + SPARE;
    if needed > limit {
        let message = format!(
            "{connections} connections need {needed} open files, and this process may have {limit}: \
             raise it with ulimit -n"
        );
        return Err(crate::cli::Usage(message).into());
    }
    Ok(())
}
