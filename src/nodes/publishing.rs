//! What this node publishes while it leads: the router's relay to the bus, and the marks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hushnet_bus::{Bus, Dropped};

use super::link::Subjects;
use super::message::{Run, VERSION_OLDEST};
use super::publisher::{Destination, Publisher};
use crate::delivery::Relay;
use crate::metrics::Metrics;
use crate::protocol::{Cursor, Label, Notification};

/// Between two log lines about messages that the bus did not take.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// Between two marks.
pub const MARK_INTERVAL: Duration = Duration::from_millis(200);
/// A follower that misses so many marks in a row reads the log itself.
const MARKS_MISSED_MAX: u32 = 5;

/// Whether no leader's messages come any more, the last one so long ago. Marks that are late or lost one by one are no sign.
#[must_use]
pub fn is_silence(since_last: Duration) -> bool {
    since_last > MARK_INTERVAL * MARKS_MISSED_MAX
}

/// Publishes what the router routes while there is a run. Cheap to clone: every clone is the same.
#[derive(Debug, Clone)]
pub struct Publishing {
    bus: Bus,
    current: Arc<Mutex<Option<Current>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Current {
    publisher: Publisher,
    subjects: Subjects,
    /// Whether the listener is connected. Without it the leader is no better than none.
    lives: bool,
    /// When it was last said that a message was dropped.
    said: Option<Instant>,
}

impl Publishing {
    /// Publishes nothing yet.
    #[must_use]
    pub fn new(bus: Bus, metrics: Arc<Metrics>) -> Self {
        Self {
            bus,
            current: Arc::default(),
            metrics,
        }
    }

    /// Publishes in this run from here on, and as the router's relay what it routes.
    pub fn begin(&self, run: Run) {
        let publisher = Publisher::new(run);
        let mut current = self.lock();
        let version = f64::from(VERSION_OLDEST);
        self.metrics.node_batch_version.set(version);
        *current = Subjects::of(run.history).map(|subjects| Current {
            publisher,
            subjects,
            lives: true,
            said: None,
        });
    }

    /// Publishes no more.
    pub fn end(&self) {
        let mut current = self.lock();
        self.metrics.node_batch_version.set(0.0);
        *current = None;
    }

    /// The run in which this node publishes.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        let current = self.lock();
        current.as_ref().map(|current| *current.publisher.run())
    }

    /// Writes messages of this format from here on.
    pub fn set_version(&self, version: u8) {
        let mut current = self.lock();
        let Some(Current { publisher, .. }) = &mut *current else {
            return;
        };
        if publisher.set_version(version) {
            tracing::info!(event = "batch_version", version);
        }
        self.metrics.node_batch_version.set(f64::from(version));
    }

    /// Whether the listener is connected: without it there are no marks.
    pub fn set_lives(&self, lives: bool) {
        if let Some(current) = &mut *self.lock() {
            current.lives = lives;
        }
    }

    /// Publishes marks for ever, while there is a run.
    pub async fn publish_marks(self) {
        let mut interval = tokio::time::interval(MARK_INTERVAL);
        loop {
            interval.tick().await;
            self.publish(|publisher, publish| publisher.marks(publish), true);
        }
    }

    fn publish(
        &self,
        what: impl FnOnce(&mut Publisher, &mut dyn FnMut(Destination, Vec<u8>)),
        only_alive: bool,
    ) {
        let mut current = self.lock();
        let Some(Current {
            publisher,
            subjects,
            lives,
            said,
        }) = &mut *current
        else {
            return;
        };
        if only_alive && !*lives {
            return;
        }
        what(publisher, &mut |to, message| {
            let bytes = message.len() as u64;
            match self.bus.publish(subjects.subject(to), message.into()) {
                Ok(()) => self.metrics.bus_published(bytes),
                // Its number stays, so that followers see that it is missing.
                Err(cause) => {
                    self.metrics.bus_messages_dropped.increment(cause);
                    say(cause, said);
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says now and then that a message was dropped. That there is no connection is said where it ends.
fn say(cause: Dropped, said: &mut Option<Instant>) {
    let is_recent = said.is_some_and(|said| said.elapsed() < SAID_EVERY);
    if cause == Dropped::Disconnected || is_recent {
        return;
    }
    *said = Some(Instant::now());
    let advice = cause.advice();
    tracing::warn!(
        event = "bus_message_dropped",
        cause = cause.as_str(),
        advice
    );
}

impl Relay for Publishing {
    fn event(&mut self, notification: &Notification<'_>) {
        self.publish(
            |publisher, publish| publisher.event(notification, publish),
            false,
        );
    }

    fn barrier(&mut self, barrier: &Cursor) {
        self.publish(
            |publisher, publish| {
                if publisher.goes_on_at(Some(barrier)) {
                    publisher.barrier(barrier, publish);
                }
            },
            false,
        );
    }

    fn restart(&mut self, cursor: Option<&Cursor>) {
        let goes_on = |current: &Current| current.publisher.goes_on_at(cursor);
        if !self.lock().as_ref().is_some_and(goes_on) {
            self.end();
        }
    }

    fn row_for_all(&mut self) {
        self.publish(|publisher, publish| publisher.row_for_all(publish), false);
    }

    fn sources(&mut self) {
        self.publish(|publisher, publish| publisher.sources(publish), false);
    }

    fn flush(&mut self) {
        self.publish(|publisher, publish| publisher.flush(publish), false);
    }
}

#[cfg(test)]
mod tests {
    use hushnet_bus::TlsSettings;

    use super::*;

    #[test]
    fn a_few_marks_that_do_not_come_are_no_silence() {
        assert!(!is_silence(MARK_INTERVAL * 5));
        assert!(is_silence(MARK_INTERVAL * 6));
    }

    /// Events of a new history must not be taken for the old one's.
    #[test]
    fn a_run_ends_with_its_history() {
        let url = "redis://127.0.0.1:1".parse().unwrap();
        let (bus, ..) = hushnet_bus::open(url, TlsSettings::default());
        let mut publishing = Publishing::new(bus, Arc::new(Metrics::new()));
        let run = Run {
            history: 1,
            timeline: 1,
            number: 7,
        };
        publishing.begin(run);
        let cursor = |text: &str| text.parse::<Cursor>().unwrap();
        publishing.restart(Some(&cursor("1-1.5:5:")));
        assert_eq!(publishing.run(), Some(run));
        for other in [Some(cursor("2-1.5:5:")), Some(cursor("1-2.5:5:")), None] {
            publishing.begin(run);
            publishing.restart(other.as_ref());
            assert_eq!(publishing.run(), None);
        }
    }
}
