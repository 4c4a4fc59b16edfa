//! Notified events of transactions that commit without waiting for the disk (`synchronous_commit = off`). A crash of
//! PostgreSQL takes back what is not on disk and gives its numbers out again, so they are routed when it is. Pure.

use std::collections::VecDeque;

/// Memory of the payloads that wait, in bytes. Where one more has no room, all are read from the log.
pub const AWAITING_DISK_BYTES_MAX: usize = 4 << 20;
/// Of one beside its text. A queue that grows has its old and its new memory for a moment, and the new one may be half
/// empty.
const ENTRY_BYTES: usize = 3 * size_of::<Box<str>>();

/// The payloads that wait, in their order.
#[derive(Debug, Default)]
pub(super) struct AwaitingDisk {
    payloads: VecDeque<Box<str>>,
    bytes: usize,
    /// How many have been taken out.
    taken: u64,
}

impl AwaitingDisk {
    /// Holds a payload. Returns whether there was room; if not, nothing is held any more.
    pub(super) fn hold(&mut self, payload: &str) -> bool {
        self.bytes += ENTRY_BYTES + payload.len();
        self.payloads.push_back(payload.into());
        let has_room = self.bytes <= AWAITING_DISK_BYTES_MAX;
        if !has_room {
            self.clear();
        }
        has_room
    }

    /// The number of the newest payload; `None` where none waits.
    pub(super) fn newest(&self) -> Option<u64> {
        (!self.payloads.is_empty()).then(|| self.taken + self.payloads.len() as u64)
    }

    /// The oldest payload, if its number is not above this one.
    pub(super) fn take(&mut self, through: u64) -> Option<Box<str>> {
        let payload = self.payloads.pop_front_if(|_| self.taken < through)?;
        self.taken += 1;
        self.bytes -= ENTRY_BYTES + payload.len();
        Some(payload)
    }

    /// All of them are read from the log.
    pub(super) fn clear(&mut self) {
        self.taken += self.payloads.len() as u64;
        self.bytes = 0;
        self.payloads = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(waiting: &mut AwaitingDisk, through: u64) -> Vec<String> {
        std::iter::from_fn(|| waiting.take(through).map(String::from)).collect()
    }

    #[test]
    fn they_come_out_in_order_up_to_the_one_that_is_on_disk() {
        let mut waiting = AwaitingDisk::default();
        assert_eq!(waiting.newest(), None);
        assert!(waiting.hold("a") && waiting.hold("b"));
        let on_disk = waiting.newest().unwrap();
        assert!(waiting.hold("c"));
        assert_eq!(taken(&mut waiting, on_disk), ["a", "b"]);
        assert_eq!(taken(&mut waiting, on_disk), [""; 0]);
        assert_eq!(taken(&mut waiting, u64::MAX), ["c"]);
        assert_eq!(waiting.newest(), None);
    }

    #[test]
    fn a_flush_that_began_before_they_were_dropped_releases_none_of_later() {
        let mut waiting = AwaitingDisk::default();
        assert!(waiting.hold("a"));
        let on_disk = waiting.newest().unwrap();
        waiting.clear();
        assert!(waiting.hold("b"));
        assert_eq!(taken(&mut waiting, on_disk), [""; 0]);
    }

    #[test]
    fn beyond_the_bound_nothing_is_held() {
        let mut waiting = AwaitingDisk::default();
        let long = "x".repeat(AWAITING_DISK_BYTES_MAX / 2 - ENTRY_BYTES);
        assert!(waiting.hold(&long) && waiting.hold(&long));
        assert!(!waiting.hold(""));
        assert_eq!(waiting.newest(), None);
        assert!(waiting.hold(&long));
    }
}
