//! Events through the server's injector: a line of TCP for each, as PostgreSQL would notify it.
//!
//! Never blocks: what the socket does not take stays in memory until the next `flush`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use anyhow::{Context, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use uuid::Uuid;

use crate::cli::Usage;
use crate::events::chat_id;

/// A buffer that has as much is not added to.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Injector {
    stream: TcpStream,
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are written.
    written: usize,
}

impl Injector {
    /// Connects; the socket wakes the loop when it takes more.
    pub(crate) fn connect(address: SocketAddr, registry: &Registry) -> anyhow::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(Usage(format!("--inject {address}: is not on this machine")).into());
        }
        let stream = std::net::TcpStream::connect(address)
            .with_context(|| format!("connecting to the injector at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, Token(usize::MAX), Interest::WRITABLE)?;
        Ok(Self {
            stream,
            chunks: VecDeque::new(),
            written: 0,
        })
    }

    /// Adds an event to what is to be written.
    pub(crate) fn add(&mut self, number: u64, user: Uuid) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_BYTES => line(number, user, chunk),
            _ => {
                let mut chunk = Vec::new();
                line(number, user, &mut chunk);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Bytes that are not written.
    pub(crate) fn left(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() - self.written
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        while let Some(chunk) = self.chunks.front() {
            if self.written < chunk.len() {
                match self.stream.write(&chunk[self.written..]) {
                    Ok(0) => bail!("the injector takes no more"),
                    Ok(written) => self.written += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).context("writing to the injector"),
                }
            } else {
                self.chunks.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }
}

/// The trigger's JSON, to the letter.
fn line(number: u64, user: Uuid, into: &mut Vec<u8>) {
    let chat = chat_id(number);
    // Writing to memory cannot fail.
    let _ = writeln!(
        into,
        r#"{{"type" : "message", "chat_id" : "{chat}", "user_id" : "{user}", "id" : {number}}}"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_the_trigger_writes() {
        let mut text = Vec::new();
        line(7, Uuid::from_u128(255), &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\"type\" : \"message\", \"chat_id\" : \"00000000-0000-0000-0000-000000000007\", \
             \"user_id\" : \"00000000-0000-0000-0000-0000000000ff\", \"id\" : 7}\n"
        );
    }
}
