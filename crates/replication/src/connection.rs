//! A session for replication, before and while it streams.

use std::io;

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::Error;
use crate::transport::Transport;

/// What is read at once from the socket.
const READ_BYTES: usize = 64 << 10;
/// The message that answers `START_REPLICATION`, which `postgres-protocol` does not know.
const COPY_BOTH: u8 = b'W';
const HEADER_BYTES: usize = 5;

/// A row of an answer, each value as text.
pub type Row = Vec<Option<String>>;

/// One message of PostgreSQL.
pub(crate) enum Frame {
    Message(Message),
    CopyBoth,
}

/// A session for replication. Dropping it ends the session, and with it its temporary slot.
pub struct Connection {
    transport: Box<dyn Transport>,
    incoming: BytesMut,
    pub(crate) outgoing: BytesMut,
    message_bytes_max: usize,
}

impl Connection {
    /// A session that has not begun yet.
    pub(crate) fn new(transport: Box<dyn Transport>, message_bytes_max: usize) -> Self {
        Self {
            transport,
            incoming: BytesMut::with_capacity(READ_BYTES),
            outgoing: BytesMut::new(),
            message_bytes_max,
        }
    }

    /// Executes one statement, of SQL or of replication, and returns its rows.
    ///
    /// # Errors
    /// Why it was not executed. After [`Error::Server`] the session goes on.
    pub async fn query(&mut self, statement: &str) -> Result<Vec<Row>, Error> {
        frontend::query(statement, &mut self.outgoing)?;
        self.send().await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            match self.receive().await? {
                Frame::Message(Message::DataRow(body)) => {
                    let values = body.ranges().map(|range| {
                        let value = range.map(|range| &body.buffer()[range]);
                        Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
                    });
                    rows.push(values.collect()?);
                }
                Frame::Message(Message::ErrorResponse(body)) => {
                    failed = Some(Error::server(body.fields()));
                }
                Frame::Message(Message::ReadyForQuery(_)) => return failed.map_or(Ok(rows), Err),
                Frame::Message(_) => {}
                Frame::CopyBoth => return Err(Error::Protocol("a stream that nobody asked for")),
            }
        }
    }

    /// Makes a temporary slot of this name for `pgoutput`. It waits for every transaction that runs and has a number.
    ///
    /// # Errors
    /// Why there is none. After [`Error::Server`] the session goes on.
    pub async fn create_slot(&mut self, slot: &str) -> Result<(), Error> {
        let create = format!(
            "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
            quoted(slot)
        );
        self.query(&create).await.map(drop)
    }

    /// Sends what was written. Not cancel-safe: a session whose send was given up is over.
    pub(crate) async fn send(&mut self) -> Result<(), Error> {
        self.transport.write_all_buf(&mut self.outgoing).await?;
        self.transport.flush().await?;
        Ok(())
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.received()? {
                return Ok(frame);
            }
            if self.incoming.capacity() - self.incoming.len() < READ_BYTES / 2 {
                self.incoming.reserve(READ_BYTES);
            }
            if self.transport.read_buf(&mut self.incoming).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    /// The next message, if all of it has been received.
    pub(crate) fn received(&mut self) -> Result<Option<Frame>, Error> {
        let Some(header) = Header::parse(&self.incoming)? else {
            return Ok(None);
        };
        let bytes = usize::try_from(header.len()).map_err(io::Error::other)?;
        let bytes_max = self.message_bytes_max;
        if bytes > bytes_max {
            return Err(Error::TooLong { bytes, bytes_max });
        }
        if header.tag() == COPY_BOTH {
            let whole = bytes + HEADER_BYTES - size_of::<u32>();
            if self.incoming.len() < whole {
                return Ok(None);
            }
            self.incoming.advance(whole);
            return Ok(Some(Frame::CopyBoth));
        }
        Ok(Message::parse(&mut self.incoming)?.map(Frame::Message))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A name as PostgreSQL takes it whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
