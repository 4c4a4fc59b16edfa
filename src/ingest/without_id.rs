//! Notifications without an id in a database that has a log, whose own triggers always write one.
//!
//! Either the application's trigger stands beside the log's, and the event comes from the log anyway, or the log has
//! just gone and HushNet's own triggers are back. The next barrier tells: until then the notifications are held, up to
//! a bound. Pure: the caller says what time it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::protocol::Channel;

/// Memory of the notifications that are held. Of more, the oldest is dropped.
pub const WITHOUT_ID_BYTES_MAX: usize = 4 << 20;
/// Of one beside its text. A queue that grows has its old and its new memory for a moment, and the new one may be half
/// empty.
const ENTRY_BYTES: usize = 3 * size_of::<(Channel, Box<str>)>();
/// Between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// The notifications without an id since the last barrier that found the log, in their order.
#[derive(Debug, Default)]
pub(super) struct WithoutId {
    held: VecDeque<(Channel, Box<str>)>,
    bytes: usize,
    warned: Option<Instant>,
}

impl WithoutId {
    /// Holds a notification.
    pub(super) fn hold(&mut self, channel: Channel, payload: &str, metrics: &Metrics) {
        self.bytes += ENTRY_BYTES + payload.len();
        self.held.push_back((channel, payload.into()));
        while self.bytes > WITHOUT_ID_BYTES_MAX
            && let Some((channel, payload)) = self.held.pop_front()
        {
            self.bytes -= ENTRY_BYTES + payload.len();
            metrics.notification_without_id(channel);
        }
    }

    /// A barrier has found the log: its triggers have written everything that came before. What is held is the same
    /// events once more, and is dropped.
    pub(super) fn drop_foreign(&mut self, metrics: &Metrics, now: Instant) {
        let Some((channel, _)) = self.held.front() else {
            return;
        };
        let since = self.warned.map(|warned| now.duration_since(warned));
        if since.is_none_or(|since| since >= WARNING_INTERVAL) {
            self.warned = Some(now);
            tracing::warn!(
                event = "notification_without_id",
                channel = metrics.channels().name(*channel),
                advice = "something else than the log's triggers notifies on this channel, and is ignored; if it is \
                          the application's own trigger, run hushnet-realtime migrate up"
            );
        }
        for (channel, _) in self.held.drain(..) {
            metrics.notification_without_id(channel);
        }
        self.bytes = 0;
    }

    /// The log has gone: the texts of the notifications that are events.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Box<str>> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
            .into_iter()
            .map(|(_, payload)| payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(held: &mut WithoutId) -> Vec<String> {
        held.take().map(String::from).collect()
    }

    #[test]
    fn what_is_held_is_dropped_when_the_log_is_there_and_comes_out_when_it_has_gone() {
        let (metrics, now) = (Metrics::new(), Instant::now());
        let mut held = WithoutId::default();
        held.hold(Channel::MESSAGES, "a", &metrics);
        held.drop_foreign(&metrics, now);
        held.hold(Channel::MESSAGES, "b", &metrics);
        held.hold(Channel::MESSAGES, "c", &metrics);
        assert_eq!(texts(&mut held), ["b", "c"]);
        assert_eq!(texts(&mut held), [""; 0]);
    }

    #[test]
    fn beyond_the_bound_the_oldest_are_dropped() {
        let metrics = Metrics::new();
        let mut held = WithoutId::default();
        let long = "x".repeat(WITHOUT_ID_BYTES_MAX / 2 - ENTRY_BYTES);
        for text in ["a", &long, &long] {
            held.hold(Channel::MESSAGES, text, &metrics);
        }
        assert_eq!(texts(&mut held), [long.clone(), long.clone()]);
        held.hold(Channel::MESSAGES, "b", &metrics);
        assert_eq!(texts(&mut held), ["b"]);
    }

    #[test]
    fn short_notifications_count_with_the_memory_that_each_takes() {
        let metrics = Metrics::new();
        let mut held = WithoutId::default();
        for _ in 0..2 * WITHOUT_ID_BYTES_MAX / ENTRY_BYTES {
            held.hold(Channel::MESSAGES, "", &metrics);
        }
        assert_eq!(held.held.len(), WITHOUT_ID_BYTES_MAX / ENTRY_BYTES);
    }
}
