//! The server's log: its size and its last lines.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::ClusterError;

/// A longer log is renamed at the next start.
const BYTES_MAX: u64 = 1024 * 1024;
/// Largest part of a log that is read for its last lines.
const TAIL_BYTES_MAX: u64 = 64 * 1024;

/// 0 if there is no log yet.
pub(crate) fn bytes(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |found| found.len())
}

/// Renames a log that is too long, because PostgreSQL never shortens it.
pub(crate) fn rotate(log: &Path) -> Result<(), ClusterError> {
    if bytes(log) <= BYTES_MAX {
        return Ok(());
    }
    fs::rename(log, log.with_extension("log.1")).map_err(ClusterError::io("rename", log))
}

/// The last `lines_max` lines after the byte `start`.
pub(crate) fn tail(log: &Path, start: u64, lines_max: usize) -> String {
    let start = start.max(bytes(log).saturating_sub(TAIL_BYTES_MAX));
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return format!("(cannot read it: {error})");
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines_after_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("postgres.log");
        assert_eq!(bytes(&log), 0);
        fs::write(&log, "before\none\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 7, 20), "one\ntwo\nthree");
        assert_eq!(tail(&log, 7, 2), "two\nthree");
    }

    #[test]
    fn only_a_long_log_is_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("postgres.log");
        fs::write(&log, "short").unwrap();
        rotate(&log).unwrap();
        assert_eq!(bytes(&log), 5);

        File::options()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(BYTES_MAX + 1)
            .unwrap();
        rotate(&log).unwrap();
        assert_eq!(bytes(&log), 0);
        assert_eq!(
            bytes(&directory.path().join("postgres.log.1")),
            BYTES_MAX + 1
        );
    }
}
