//! When the sources are to be read because the control channel says so. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

/// Between two reads of the sources that a notification of the control channel asks for.
const SOURCES_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the sources are known to be as they were read. Any role may notify the control channel, so they are not read
/// often.
#[derive(Debug, Default)]
pub(super) struct SourcesDoubt {
    changed: bool,
    /// When they were last read for that.
    read: Option<Instant>,
}

impl SourcesDoubt {
    /// They may have changed.
    pub(super) fn begin(&mut self) {
        self.changed = true;
    }

    /// Whether they are to be read now. The clock is asked only where it matters.
    pub(super) fn take_due(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if !self.changed {
            return false;
        }
        let now = now();
        if self
            .read
            .is_some_and(|at| now.duration_since(at) < SOURCES_INTERVAL)
        {
            return false;
        }
        self.changed = false;
        self.read = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_when_they_may_have_changed_and_not_often() {
        let start = Instant::now();
        let mut doubt = SourcesDoubt::default();
        assert!(!doubt.take_due(|| start));
        doubt.begin();
        assert!(doubt.take_due(|| start) && !doubt.take_due(|| start));
        doubt.begin();
        assert!(!doubt.take_due(|| start));
        assert!(doubt.take_due(|| start + SOURCES_INTERVAL));
    }
}
