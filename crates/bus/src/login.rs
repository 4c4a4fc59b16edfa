//! From the address to a connection that is logged in.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{BusCause, BusError};
use crate::outbound::PUBLISH_BYTES_MAX;
use crate::tls::TlsSettings;
use crate::transport::{self, Transport};
use crate::url::{Broker, BusUrl, Host};
use crate::wire::{NatsInfo, NatsWire, RedisWire, Wire};

/// For the name, TCP, TLS and the login together.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const LOGIN_GRACE: Duration = Duration::from_millis(100);
/// A NATS server speaks first, and at once. A server that has not is asked in the words of Redis.
const NATS_FIRST_LINE_MAX: Duration = Duration::from_millis(2500);
/// NATS's first line; a large cluster's is some KiB.
const NATS_FIRST_LINE_BYTES_MAX: usize = 256 * 1024;
const FIRST_WORD: &[u8] = b"INFO ";
const READ_BYTES: usize = 4096;

/// A connection that is logged in.
pub(crate) struct Connection {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) wire: AnyWire,
    /// The longest payload that the broker takes.
    pub(crate) payload_bytes_max: usize,
}

/// One of the protocols.
pub(crate) enum AnyWire {
    Redis(RedisWire),
    Nats(Box<NatsWire>),
}

/// Connects and logs in.
pub(crate) async fn connect(
    url: &BusUrl,
    host: &Host,
    tls: &TlsSettings,
) -> Result<Connection, BusError> {
    let deadline = Instant::now() + CONNECT_MAX;
    let socket = transport::connect(host, deadline).await?;
    let login = async {
        match url.broker() {
            Broker::Redis => redis(socket, url, host, tls, deadline).await,
            Broker::Nats => nats(socket, url, host, tls, deadline).await,
        }
    };
    // A little more than TLS has: its error says more.
    match timeout_at(deadline + LOGIN_GRACE, login).await {
        Ok(result) => result,
        Err(_) => Err(BusError::new(
            BusCause::Silent,
            format!("{host} accepts connections and does not answer the login"),
        )),
    }
}

async fn redis(
    socket: TcpStream,
    url: &BusUrl,
    host: &Host,
    tls: &TlsSettings,
    deadline: Instant,
) -> Result<Connection, BusError> {
    let mut transport: Box<dyn Transport> = if url.is_tls() {
        transport::secure(socket, host, tls, deadline).await?
    } else {
        Box::new(socket)
    };
    let mut wire = RedisWire::default();
    wire.hello(url.login());
    let answered = converse(&mut transport, &mut wire, RedisWire::login_answer).await;
    if let Err(error) = answered {
        let may_expect_tls = !url.is_tls() && error.cause() == BusCause::Closed;
        if may_expect_tls && transport::speaks_tls(host, deadline).await {
            let detail = format!("{host} expects TLS");
            return Err(BusError::new(BusCause::Tls, detail));
        }
        return Err(error);
    }
    Ok(Connection {
        transport,
        wire: AnyWire::Redis(wire),
        payload_bytes_max: PUBLISH_BYTES_MAX,
    })
}

async fn nats(
    mut socket: TcpStream,
    url: &BusUrl,
    host: &Host,
    tls: &TlsSettings,
    deadline: Instant,
) -> Result<Connection, BusError> {
    let (info, rest) = first_line(&mut socket).await?;
    let is_tls = url.is_tls() || info.tls_required;
    let mut transport: Box<dyn Transport> = if is_tls {
        if !info.tls_required && !info.tls_available {
            let detail = format!("{host} does not offer TLS");
            return Err(BusError::new(BusCause::Tls, detail));
        }
        // What came before TLS could be from anyone.
        if !rest.is_empty() {
            let detail = format!("{host} sent more before TLS than its first line");
            return Err(BusError::new(BusCause::Tls, detail));
        }
        transport::secure(socket, host, tls, deadline).await?
    } else {
        Box::new(socket)
    };
    let mut wire = NatsWire::default();
    wire.feed(&rest);
    wire.connect(url.login(), is_tls);
    converse(&mut transport, &mut wire, NatsWire::login_answer).await?;
    Ok(Connection {
        transport,
        wire: AnyWire::Nats(Box::new(wire)),
        payload_bytes_max: info.max_payload.min(PUBLISH_BYTES_MAX),
    })
}

/// The server's first line, and what came with it.
async fn first_line(socket: &mut TcpStream) -> Result<(NatsInfo, BytesMut), BusError> {
    let mut received = BytesMut::new();
    let mut has_asked = false;
    loop {
        if let Some(end) = received.windows(2).position(|two| two == b"\r\n") {
            let info = NatsInfo::parse(&received[..end])?;
            received.advance(end + 2);
            return Ok((info, received));
        }
        let head = &received[..received.len().min(FIRST_WORD.len())];
        if !FIRST_WORD.starts_with(head) || received.len() > NATS_FIRST_LINE_BYTES_MAX {
            return NatsInfo::parse(&received).map(|info| (info, BytesMut::new()));
        }
        let may_ask = !has_asked && received.is_empty();
        let reading = socket.read_buf(&mut received);
        if !may_ask {
            read(reading.await)?;
        } else if let Ok(result) = timeout(NATS_FIRST_LINE_MAX, reading).await {
            read(result)?;
        } else {
            has_asked = true;
            socket.write_all(b"PING\r\n").await.map_err(closed)?;
        }
    }
}

/// Writes what the wire has, and reads until it has its answer.
async fn converse<W: Wire>(
    transport: &mut Box<dyn Transport>,
    wire: &mut W,
    answer: fn(&mut W) -> Result<Option<()>, BusError>,
) -> Result<(), BusError> {
    // The answer may come although the write fails: a server that refuses closes the connection.
    let written = write(transport, wire).await;
    let mut received = BytesMut::with_capacity(READ_BYTES);
    loop {
        if answer(wire)?.is_some() {
            return Ok(());
        }
        received.clear();
        match transport.read_buf(&mut received).await {
            Ok(0) | Err(_) if written.is_err() => return written,
            result => read(result)?,
        }
        wire.feed(&received);
    }
}

async fn write<W: Wire>(transport: &mut Box<dyn Transport>, wire: &mut W) -> Result<(), BusError> {
    let all = async {
        transport.write_all_buf(wire.outgoing()).await?;
        transport.flush().await
    };
    all.await.map_err(closed)
}

fn read(result: std::io::Result<usize>) -> Result<(), BusError> {
    match result {
        Ok(0) => Err(closed("during the login")),
        Ok(_) => Ok(()),
        Err(error) => Err(closed(error)),
    }
}

fn closed(detail: impl std::fmt::Display) -> BusError {
    BusError::new(BusCause::Closed, detail)
}
