//! The events that wait for their reader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::event::{BusEvent, GapCause};
use crate::subject::Subject;

/// The most bytes of messages that wait for [`crate::BusEvents::next`], with what holds them. More are dropped.
pub const INBOUND_BYTES_MAX: usize = 64 << 20;
/// Events other than messages that wait at most; the driver neither connects nor subscribes above it.
pub(crate) const CONTROL_EVENTS_MAX: usize = 4096;
/// What a message costs beside its payload: the event in the queue, and the payload's allocation.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = size_of::<BusEvent>() + 64;

/// The queue between the driver and [`crate::BusEvents`].
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    queue: Mutex<Queue>,
    /// An event has come.
    event: Notify,
    /// Control events have been taken.
    room: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<BusEvent>,
    message_bytes: usize,
    control_events: usize,
    /// Messages are dropped until half of what waited has been taken.
    is_dropping: bool,
}

impl Inbound {
    /// Queues a message, or drops it and queues a gap. One gap stands for all messages that are dropped together.
    pub(crate) fn message(&self, subject: Subject, payload: Bytes) {
        let mut queue = self.lock();
        let cost = payload.len() + MESSAGE_OVERHEAD_BYTES;
        queue.is_dropping &= queue.message_bytes > INBOUND_BYTES_MAX / 2;
        if queue.is_dropping {
            return;
        }
        if queue.message_bytes + cost > INBOUND_BYTES_MAX {
            queue.is_dropping = true;
            queue.control_events += 1;
            queue.events.push_back(BusEvent::Gap(GapCause::InboundFull));
        } else {
            queue.message_bytes += cost;
            queue
                .events
                .push_back(BusEvent::Message { subject, payload });
        }
        drop(queue);
        self.event.notify_one();
    }

    /// Queues an event that is no message.
    pub(crate) fn control(&self, event: BusEvent) {
        let mut queue = self.lock();
        queue.control_events += 1;
        queue.events.push_back(event);
        drop(queue);
        self.event.notify_one();
    }

    /// Whether more control events may be caused.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().control_events < CONTROL_EVENTS_MAX
    }

    /// Waits until more control events may be caused.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            self.room.notified().await;
        }
    }

    /// The next event. Cancel-safe; for one reader.
    pub(crate) async fn next(&self) -> BusEvent {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            self.event.notified().await;
        }
    }

    fn take(&self) -> Option<BusEvent> {
        let mut queue = self.lock();
        let event = queue.events.pop_front()?;
        if let BusEvent::Message { payload, .. } = &event {
            queue.message_bytes -= payload.len() + MESSAGE_OVERHEAD_BYTES;
        } else {
            queue.control_events -= 1;
            self.room.notify_one();
        }
        if queue.events.is_empty() && queue.events.capacity() > CONTROL_EVENTS_MAX {
            queue.events = VecDeque::new();
        }
        Some(event)
    }

    /// The reader is gone: nothing waits any longer.
    pub(crate) fn close(&self) {
        *self.lock() = Queue::default();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD_BYTES: usize = 1 << 20;

    fn push(inbound: &Inbound) {
        let payload = Bytes::from(vec![0; PAYLOAD_BYTES]);
        inbound.message(Subject::new("a").unwrap(), payload);
    }

    #[tokio::test]
    async fn what_has_no_room_is_dropped_until_half_is_taken_and_one_gap_says_so() {
        let inbound = Inbound::default();
        let room = INBOUND_BYTES_MAX / (PAYLOAD_BYTES + MESSAGE_OVERHEAD_BYTES);
        for _ in 0..room + 5 {
            push(&inbound);
        }
        let mut taken = 0;
        while inbound.lock().message_bytes > INBOUND_BYTES_MAX / 2 {
            push(&inbound);
            assert!(matches!(inbound.next().await, BusEvent::Message { .. }));
            taken += 1;
        }
        push(&inbound);
        for _ in taken..room {
            assert!(matches!(inbound.next().await, BusEvent::Message { .. }));
        }
        let gap = BusEvent::Gap(GapCause::InboundFull);
        assert_eq!(inbound.next().await, gap);
        assert!(matches!(inbound.next().await, BusEvent::Message { .. }));
        assert!(inbound.take().is_none());
        assert_eq!(inbound.lock().message_bytes, 0);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_events_and_again_when_one_is_taken() {
        let inbound = Inbound::default();
        for _ in 0..CONTROL_EVENTS_MAX {
            assert!(inbound.has_room());
            inbound.control(BusEvent::Connected);
        }
        assert!(!inbound.has_room());
        let waiting = async {
            inbound.room().await;
            inbound.has_room()
        };
        let taking = async { inbound.next().await };
        assert_eq!(tokio::join!(waiting, taking), (true, BusEvent::Connected));
    }
}
