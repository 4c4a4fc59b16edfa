//! The stream of a slot's changes.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend::{self, CopyData};

use crate::connection::{Connection, Frame, quoted};
use crate::error::Error;
use crate::pgoutput::{Change, take_u8, take_u64};

/// Seconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_SECONDS: u64 = 946_684_800;
/// The header of a change: where it begins, the end of the write-ahead log, and the time.
const CHANGE_HEADER_BYTES: usize = 24;

/// What the stream brings.
#[derive(Debug)]
pub enum Received {
    /// A change, or the beginning or the end of a transaction.
    Change(Change),
    /// Nothing is left to send up to this position of the write-ahead log.
    KeepAlive {
        /// The position.
        end: u64,
        /// PostgreSQL wants feedback now.
        reply: bool,
    },
}

/// The changes of a publication, in the order of commits. Dropping it ends the session, and with it its temporary slot.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
}

impl Stream {
    /// Begins to stream what the publication has, from the beginning of the slot. Values come in their binary form where
    /// their type has one.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn start(
        mut connection: Connection,
        slot: &str,
        publication: &str,
    ) -> Result<Self, Error> {
        let start = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', binary 'true', publication_names '{}')",
            quoted(slot),
            quoted(publication).replace('\'', "''")
        );
        frontend::query(&start, &mut connection.outgoing)?;
        connection.send().await?;
        loop {
            match connection.receive().await? {
                Frame::CopyBoth => return Ok(Self { connection }),
                Frame::Message(Message::ErrorResponse(body)) => {
                    return Err(Error::server(body.fields()));
                }
                Frame::Message(Message::ReadyForQuery(_)) => {
                    return Err(Error::Protocol("no stream in answer to START_REPLICATION"));
                }
                Frame::Message(_) => {}
            }
        }
    }

    /// The next of what the stream brings. Cancel-safe.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub async fn next(&mut self) -> Result<Received, Error> {
        loop {
            let frame = self.connection.receive().await?;
            if let Some(received) = of_frame(frame)? {
                return Ok(received);
            }
        }
    }

    /// The same, if it has been received already.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub fn next_received(&mut self) -> Result<Option<Received>, Error> {
        while let Some(frame) = self.connection.received()? {
            if let Some(received) = of_frame(frame)? {
                return Ok(Some(received));
            }
        }
        Ok(None)
    }

    /// Tells PostgreSQL that everything up to this position has been dealt with: it need not keep the write-ahead log
    /// before.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub async fn confirm(&mut self, position: u64) -> Result<(), Error> {
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        for _ in ["written", "flushed", "applied"] {
            status.put_u64(position);
        }
        status.put_u64(now_micros());
        status.put_u8(0);
        CopyData::new(status)?.write(&mut self.connection.outgoing);
        self.connection.send().await
    }
}

fn of_frame(frame: Frame) -> Result<Option<Received>, Error> {
    match frame {
        Frame::Message(Message::CopyData(body)) => of_data(body.into_bytes()).map(Some),
        Frame::Message(Message::ErrorResponse(body)) => Err(Error::server(body.fields())),
        Frame::Message(Message::CopyDone | Message::CommandComplete(_)) => Err(Error::Closed),
        Frame::Message(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => Ok(None),
        _ => Err(Error::Protocol("a message that has no place in a stream")),
    }
}

fn of_data(mut data: Bytes) -> Result<Received, Error> {
    match take_u8(&mut data)? {
        b'w' if data.len() >= CHANGE_HEADER_BYTES => {
            let change = data.split_off(CHANGE_HEADER_BYTES);
            Change::parse(change).map(Received::Change)
        }
        b'k' => {
            let (end, _time) = (take_u64(&mut data)?, take_u64(&mut data)?);
            let reply = take_u8(&mut data)? == 1;
            Ok(Received::KeepAlive { end, reply })
        }
        _ => Err(Error::Protocol("data of a stream that is not known")),
    }
}

/// Microseconds since 2000. PostgreSQL shows it to people and uses it for nothing else.
fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    u64::try_from(micros)
        .unwrap_or(0)
        .saturating_sub(EPOCH_SECONDS * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keepalive_says_how_far_and_whether_an_answer_is_wanted() {
        let mut data = vec![b'k'];
        data.extend(7_u64.to_be_bytes());
        data.extend(0_u64.to_be_bytes());
        data.push(1);
        let received = of_data(data.into()).unwrap();
        assert!(matches!(
            received,
            Received::KeepAlive {
                end: 7,
                reply: true
            }
        ));
    }

    #[test]
    fn what_is_cut_or_unknown_is_an_error() {
        for data in [&b""[..], b"w123", b"k1234567", b"x"] {
            assert!(of_data(Bytes::copy_from_slice(data)).is_err(), "{data:?}");
        }
    }
}
