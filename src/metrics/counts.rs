//! What is counted with every event. The recorder's own handles make two atomic additions behind a pointer;
//! these make one, and the recorder is told when it is asked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::series::EventSeries;

/// By kind. Alone on its cache line: the router counts on one core, the connections on others.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct ByKind([AtomicU64; 3]);

impl ByKind {
    pub(super) fn add(&self, kind: usize) {
        self.0[kind].fetch_add(1, Relaxed);
    }

    fn get(&self, kind: usize) -> u64 {
        self.0[kind].load(Relaxed)
    }
}

/// Each grows and never shrinks.
#[derive(Debug, Default)]
pub(super) struct EventCounts {
    /// Events with connections to go to, and those without: together, those received.
    pub(super) present: ByKind,
    pub(super) absent: ByKind,
    pub(super) delivered: ByKind,
}

impl EventCounts {
    pub(super) fn tell(&self, series: &EventSeries) {
        for kind in 0..series.events_received.len() {
            let (present, absent) = (self.present.get(kind), self.absent.get(kind));
            series.events_received[kind].absolute(present + absent);
            series.events_absent[kind].absolute(absent);
            series.events_delivered[kind].absolute(self.delivered.get(kind));
        }
    }
}
