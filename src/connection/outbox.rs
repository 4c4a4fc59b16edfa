//! What is owed to the socket: an answer that waits, a large event, and the deliveries that are being written. Pure.

use std::sync::Arc;

use crate::protocol::{Answer, Encoding, Signal};

/// What is owed to the socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The answer that waits for the socket. While one waits, nothing more is read, so that the answers of a
    /// client that does not read them do not pile up.
    answer: Option<Answer>,
    /// The event that is to be read from the log and sent before anything else.
    large: Option<(Arc<Signal>, Encoding)>,
    /// The first of the deliveries that are being written.
    first: Option<Arc<Signal>>,
    deliveries: u32,
    /// Whether a v1 client has had its first frame.
    greeted: bool,
}

/// Deliveries that were written together.
#[derive(Debug)]
pub(super) struct Delivered {
    /// The first of them.
    pub(super) first: Arc<Signal>,
    /// How many there were.
    pub(super) count: u32,
}

impl Outbox {
    /// The client is owed this answer. Returns the answer if it can be queued at once, which is when nothing is
    /// being written.
    pub(super) fn owe(&mut self, answer: Answer, is_writing: bool) -> Option<Answer> {
        if is_writing {
            self.answer = Some(answer);
            None
        } else {
            Some(answer)
        }
    }

    /// Takes the answer that waits.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
    }

    /// Whether the socket may be read.
    #[inline]
    pub(super) fn may_read(&self) -> bool {
        self.answer.is_none()
    }

    /// The client is owed this large event.
    pub(super) fn owe_large(&mut self, signal: Arc<Signal>, encoding: Encoding) {
        self.large = Some((signal, encoding));
    }

    /// Whether the client is owed a large event.
    #[inline]
    pub(super) fn owes_large(&self) -> bool {
        self.large.is_some()
    }

    /// Takes the large event.
    pub(super) fn take_large(&mut self) -> Option<(Arc<Signal>, Encoding)> {
        self.large.take()
    }

    /// An event, or a reset, has been queued.
    #[inline]
    pub(super) fn add(&mut self, signal: Arc<Signal>) {
        self.first.get_or_insert(signal);
        self.deliveries += 1;
    }

    /// Takes the deliveries: they are with the kernel.
    #[inline]
    pub(super) fn take_delivered(&mut self) -> Option<Delivered> {
        let first = self.first.take()?;
        Some(Delivered {
            first,
            count: std::mem::take(&mut self.deliveries),
        })
    }

    /// The first frame of a v1 client has been queued.
    pub(super) fn greet(&mut self) {
        self.greeted = true;
    }

    /// Whether a v1 client has had its first frame. No other frame of the protocol comes before it.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_waits_while_something_is_being_written_and_stops_the_reading() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.owe(Answer::Pong, false), Some(Answer::Pong));
        assert!(outbox.may_read());
        assert_eq!(outbox.owe(Answer::UnknownType, true), None);
        assert!(!outbox.may_read());
        assert_eq!(outbox.take_answer(), Some(Answer::UnknownType));
        assert!(outbox.may_read());
        assert_eq!(outbox.take_answer(), None);
    }

    #[test]
    fn deliveries_are_counted_together_and_the_first_stands_for_them() {
        let mut outbox = Outbox::default();
        assert!(outbox.take_delivered().is_none());
        let signals = [(); 3].map(|()| Arc::new(Signal::Wake));
        for signal in &signals {
            outbox.add(Arc::clone(signal));
        }
        let delivered = outbox.take_delivered().unwrap();
        assert!(Arc::ptr_eq(&delivered.first, &signals[0]));
        assert_eq!(delivered.count, 3);
        assert!(outbox.take_delivered().is_none());
        outbox.add(Arc::clone(&signals[1]));
        assert_eq!(outbox.take_delivered().unwrap().count, 1);
    }

    #[test]
    fn a_client_is_greeted_once() {
        let mut outbox = Outbox::default();
        assert!(!outbox.is_greeted());
        outbox.greet();
        assert!(outbox.is_greeted());
    }
}
