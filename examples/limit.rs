//! The least that a server of this kind can cost: what `make bench` holds the service against.
//!
//!     cargo run --release --example limit -- --listen 127.0.0.1:0 --inject 127.0.0.1:0
//!
//! One thread, one edge-triggered epoll, one `send(2)` for each frame. A connection is its descriptor,
//! its user and a pointer that is null unless something is half read or half written. There are no
//! heartbeats, limits, cursors, metrics or log; nothing here is fit for use. What is left is what any
//! server pays: the kernel's part, finding the user, and copying the notification into a frame.
//!
//! Whoever connects to the second address sends notifications, one on each line, as PostgreSQL would
//! deliver them. Fails by ending with an error when the process cannot go on; a client or an injector
//! that does something unexpected is dropped.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use limit_support::clients::Clients;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

mod limit_support;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LISTENER: Token = Token(usize::MAX);
const INJECTION: Token = Token(usize::MAX - 1);
/// Tokens of injectors begin here, those of clients at 0.
const INJECTORS: usize = 1 << 32;

/// The system takes less if `net.core.somaxconn` says so.
const BACKLOG: i32 = 65_535;
/// Few, so that those who wait to be accepted are not kept waiting by those who are.
const EVENTS_PER_POLL: usize = 256;
/// Read at a time; also the longest notification.
const READ_BYTES: usize = 64 << 10;

#[derive(Parser)]
struct Arguments {
    /// Where clients connect
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where notifications come from
    #[arg(long, default_value = "127.0.0.1:0")]
    inject: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut server = Server::bind(&arguments)?;
    println!("serving on http://{}", server.listener.local_addr()?);
    println!("injecting on {}", server.injection.local_addr()?);
    io::stdout().flush()?;
    server.run()
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Linux hands it down to the sockets that are accepted.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        io::Result::Ok(TcpListener::from_std(socket.into()))
    };
    bind().with_context(|| format!("cannot listen on {address}"))
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    injection: TcpListener,
    injectors: Slab<Injector>,
    /// Injectors that may have more to read.
    unread: Vec<usize>,
    clients: Clients,
    /// Whether somebody came when it was last looked.
    accepting: bool,
    /// What all clients are read into, one after another.
    scratch: Vec<u8>,
}

impl Server {
    fn bind(arguments: &Arguments) -> anyhow::Result<Self> {
        let (mut listener, mut injection) = (bind(arguments.listen)?, bind(arguments.inject)?);
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        registry.register(&mut injection, INJECTION, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            injection,
            injectors: Slab::new(),
            unread: Vec::new(),
            clients: Clients::new(registry),
            accepting: false,
            scratch: vec![0; READ_BYTES],
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            // Injectors with more to read take turns with the clients' events.
            let timeout = (!self.unread.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            // While many come, ahead of the events of those who came before: a full backlog costs seconds.
            if self.accepting {
                self.accept()?;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    INJECTION => self.accept_injector()?,
                    Token(key @ INJECTORS..) => self.on_injector(key - INJECTORS, event),
                    Token(key) => self.clients.on_event(key, event, &mut self.scratch),
                }
            }
            self.inject();
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        self.accepting = false;
        while let Some(stream) = next(&self.listener)? {
            self.clients.insert(stream)?;
            self.accepting = true;
        }
        Ok(())
    }

    fn accept_injector(&mut self) -> anyhow::Result<()> {
        while let Some(mut stream) = next(&self.injection)? {
            let entry = self.injectors.vacant_entry();
            let token = Token(INJECTORS + entry.key());
            let registry = self.poll.registry();
            registry.register(&mut stream, token, Interest::READABLE)?;
            entry.insert(Injector::new(stream));
        }
        Ok(())
    }

    fn on_injector(&mut self, key: usize, event: &Event) {
        if let Some(injector) = self.injectors.get_mut(key) {
            injector.ends |= event.is_read_closed();
            if !self.unread.contains(&key) {
                self.unread.push(key);
            }
        }
    }

    /// Reads one piece from each injector that may have more.
    fn inject(&mut self) {
        let (injectors, clients) = (&mut self.injectors, &mut self.clients);
        self.unread
            .retain(|&key| match injectors[key].read(clients) {
                Ok(more) => more,
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        injectors.remove(key);
                    }
                    false
                }
            });
    }
}

/// The next connection that waits to be accepted.
fn next(listener: &TcpListener) -> anyhow::Result<Option<TcpStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
}

/// A source of notifications.
struct Injector {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer is the beginning of a line.
    filled: usize,
    /// Whether the other side has said that it is done.
    ends: bool,
}

impl Injector {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            ends: false,
        }
    }

    /// Reads once and delivers the lines that are whole; whether there may be more.
    fn read(&mut self, clients: &mut Clients) -> io::Result<bool> {
        // A line that is too long leaves no space, and nothing is read.
        let space = &mut self.buffer[self.filled..];
        let space_bytes = space.len();
        let read = self.stream.read(space)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let end = self.filled + read;
        let mut start = 0;
        loop {
            // `skip_until` is the standard library's way to the C library's memchr.
            let length = (&self.buffer[start..end]).skip_until(b'\n')?;
            let line = &self.buffer[start..start + length];
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            clients.deliver(line);
            start += length;
        }
        self.buffer.copy_within(start..end, 0);
        self.filled = end - start;
        // A short read leaves nothing behind but, perhaps, the end.
        Ok(self.ends || read == space_bytes)
    }
}
