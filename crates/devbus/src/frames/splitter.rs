//! Cuts a stream of bytes, in whatever pieces it comes.

use bytes::{Bytes, BytesMut};

use super::frame::{Found, Frame};
use super::nats;
use super::resp::Resp;
use crate::options::BrokerKind;

/// The most bytes of a frame that has not come whole; the bytes of a longer one are no frames.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Cuts what one broker sends on one connection. What it does not understand it gives back as it came, and all that
/// follows.
#[derive(Debug)]
pub(crate) struct Splitter {
    kind: BrokerKind,
    held: BytesMut,
    resp: Resp,
    is_lost: bool,
}

impl Splitter {
    pub(crate) fn new(kind: BrokerKind) -> Self {
        Self {
            kind,
            held: BytesMut::new(),
            resp: Resp::default(),
            is_lost: false,
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next frame; `None` until more is fed.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if self.held.is_empty() {
            return None;
        }
        if !self.is_lost {
            let found = match self.kind {
                BrokerKind::Redis => self.resp.find(&self.held),
                BrokerKind::Nats => nats::find(&self.held),
            };
            match found {
                Found::Whole { length, is_message } => {
                    self.resp = Resp::default();
                    let frame = self.held.split_to(length).freeze();
                    if is_message {
                        return Some(Frame::Message(frame));
                    }
                    return Some(Frame::Other(frame));
                }
                Found::Unfinished if self.held.len() <= FRAME_BYTES_MAX => return None,
                Found::Unfinished | Found::Unknown => self.is_lost = true,
            }
        }
        Some(Frame::Other(self.rest()))
    }

    fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}
