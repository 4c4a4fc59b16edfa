//! The connections, and the bytes that go through them. An error ends the connection that it came from.

use std::io::{self, ErrorKind, Read, Write};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::users::{User, Users};
use super::wire::{self, ClientFrame};

/// The longest request and frame of a client, but for one read more.
const UNREAD_BYTES_MAX: usize = 64 << 10;
/// What waits for a client that does not read, before it is dropped.
const UNSENT_BYTES_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 64;

/// Everyone who is connected.
pub(crate) struct Clients {
    registry: Registry,
    connections: Slab<Connection>,
    users: Users,
    /// The frame that is being sent.
    frame: Vec<u8>,
    /// Connections that a frame could not be sent to.
    failed: Vec<usize>,
    /// Where in the last notification the user was: most are of one form.
    user_at: usize,
}

impl Clients {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            connections: Slab::new(),
            users: Users::default(),
            frame: Vec::new(),
            failed: Vec::new(),
            user_at: 0,
        }
    }

    pub(crate) fn insert(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        self.registry
            .register(&mut stream, token, Interest::READABLE)?;
        entry.insert(Connection {
            stream,
            user: None,
            kept: None,
        });
        Ok(())
    }

    /// Sends a notification to each device of the user that it names.
    pub(crate) fn deliver(&mut self, line: &[u8]) {
        let Some(user) = wire::user_in(line, &mut self.user_at) else {
            return;
        };
        let Some(devices) = self.users.get(&user) else {
            return;
        };
        wire::put_frame(&mut self.frame, wire::TEXT, line);
        for &key in devices.keys() {
            let connection = &mut self.connections[key];
            if connection.send(&self.frame, key, &self.registry).is_err() {
                self.failed.push(key);
            }
        }
        while let Some(key) = self.failed.pop() {
            self.remove(key);
        }
    }

    pub(crate) fn on_event(&mut self, key: usize, event: &Event, scratch: &mut [u8]) {
        // One that was dropped after the event was taken from the kernel.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let written = if event.is_writable() {
            connection.send_kept()
        } else {
            Ok(())
        };
        let done = written.and_then(|()| {
            if event.is_readable() {
                self.read(key, event.is_read_closed(), scratch)
            } else {
                Ok(())
            }
        });
        if done.is_err() {
            self.remove(key);
        }
    }

    /// Reads all that there is; an error if the connection has ended or has to.
    fn read(&mut self, key: usize, ends: bool, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            let read = match self.connections[key].stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.receive(key, &scratch[..read])?;
            // A short read leaves nothing behind but, perhaps, the end.
            if read < scratch.len() && !ends {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, key: usize, bytes: &[u8]) -> io::Result<()> {
        let mut unread = match &mut self.connections[key].kept {
            Some(kept) => std::mem::take(&mut kept.unread),
            None => Vec::new(),
        };
        if unread.is_empty() {
            let consumed = self.consume(key, bytes)?;
            unread.extend_from_slice(&bytes[consumed..]);
        } else {
            unread.extend_from_slice(bytes);
            let consumed = self.consume(key, &unread)?;
            unread.drain(..consumed);
        }
        if unread.len() > UNREAD_BYTES_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.connections[key].keep_unread(unread);
        Ok(())
    }

    /// Handles what is whole, and says how many bytes that was.
    fn consume(&mut self, key: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut consumed = 0;
        if self.connections[key].user.is_none() {
            consumed = self.shake_hands(key, bytes)?;
            if consumed == 0 {
                return Ok(0);
            }
        }
        while let Some(frame) = ClientFrame::parse(&bytes[consumed..])? {
            consumed += frame.bytes;
            if frame.opcode == wire::PING || frame.opcode == wire::CLOSE {
                let opcode = if frame.opcode == wire::PING {
                    wire::PONG
                } else {
                    wire::CLOSE
                };
                wire::put_frame(&mut self.frame, opcode, &frame.unmasked());
                self.connections[key].send(&self.frame, key, &self.registry)?;
            }
            if frame.opcode == wire::CLOSE {
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(consumed)
    }

    /// Answers the request if it is whole; its length, or 0.
    fn shake_hands(&mut self, key: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(bytes).map_err(io::Error::other)?;
        let httparse::Status::Complete(length) = parsed else {
            return Ok(0);
        };
        let connection = &mut self.connections[key];
        let Some((user, websocket_key)) = wire::asked_for(&request) else {
            let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            connection.send(refusal, key, &self.registry)?;
            return Err(ErrorKind::InvalidData.into());
        };
        self.frame.clear();
        write!(
            self.frame,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(websocket_key)
        )?;
        connection.send(&self.frame, key, &self.registry)?;
        connection.user = Some(user);
        self.users.entry(user).or_default().push(key);
        Ok(length)
    }

    fn remove(&mut self, key: usize) {
        let Some(user) = self.connections.remove(key).user else {
            return;
        };
        if let Some(devices) = self.users.get_mut(&user) {
            devices.remove(key);
            if devices.keys().is_empty() {
                self.users.remove(&user);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Whose it is, once the handshake is done.
    user: Option<User>,
    /// Null for almost all at almost every time.
    kept: Option<Box<Kept>>,
}

/// What is half read or half written.
#[derive(Default)]
struct Kept {
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    fn send(&mut self, bytes: &[u8], key: usize, registry: &Registry) -> io::Result<()> {
        if let Some(kept) = &mut self.kept
            && !kept.unsent.is_empty()
        {
            if kept.unsent.len() + bytes.len() > UNSENT_BYTES_MAX {
                return Err(ErrorKind::TimedOut.into());
            }
            kept.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = match self.stream.write(bytes) {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let unsent = &mut self.kept.get_or_insert_default().unsent;
        unsent.extend_from_slice(&bytes[sent..]);
        // From now on the kernel tells when there is space, and at once if there is some already.
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry.reregister(&mut self.stream, Token(key), interests)
    }

    fn send_kept(&mut self) -> io::Result<()> {
        let Some(kept) = &mut self.kept else {
            return Ok(());
        };
        while !kept.unsent.is_empty() {
            match self.stream.write(&kept.unsent) {
                Ok(sent) => drop(kept.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if kept.unread.is_empty() {
            self.kept = None;
        }
        Ok(())
    }

    fn keep_unread(&mut self, unread: Vec<u8>) {
        if !unread.is_empty() {
            self.kept.get_or_insert_default().unread = unread;
        } else if self
            .kept
            .as_ref()
            .is_some_and(|kept| kept.unsent.is_empty())
        {
            self.kept = None;
        }
    }
}
