//! What Linux says of the server's process, and of the machine's sockets.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::cli::Usage;

/// Linux counts in hundredths of a second in `/proc/<pid>/stat`, on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// A process that is looked at; it may be anybody's that `/proc` shows.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    directory: PathBuf,
}

impl Process {
    /// Fails when there is no such process, or when its memory may not be read.
    pub(crate) fn open(pid: u32) -> anyhow::Result<Self> {
        let process = Self {
            directory: PathBuf::from(format!("/proc/{pid}")),
        };
        process
            .memory_bytes()
            .map_err(|error| Usage(format!("--pid {pid}: {error:#}")))?;
        Ok(process)
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.directory.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// CPU time of all its threads; that of threads which have ended is not in it, unless the kernel
    /// has no scheduler statistics and the coarser sum of the whole process is taken.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let threads = fs::read_dir(self.directory.join("task")).context("the server has ended")?;
        let mut sum = 0;
        for thread in threads.flatten() {
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else {
                // The thread has just ended.
                continue;
            };
            sum += text
                .split(' ')
                .next()
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0);
        }
        if sum > 0 {
            return Ok(Duration::from_nanos(sum));
        }
        let stat = self.read("stat")?;
        ticks(&stat).context("/proc/<pid>/stat is not understood")
    }

    /// Memory that is this process's own, and its share of what it shares.
    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        let text = self.read("smaps_rollup")?;
        kilobytes(&text, "Pss:").context("smaps_rollup has no Pss")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(self.directory.join("fd"))
            .context("the server's descriptors")?
            .count())
    }
}

/// User and system time of `/proc/<pid>/stat`.
fn ticks(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold anything; the third field follows it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    Some(TICK * (field(14)? + field(15)?))
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

/// What the kernel keeps for all TCP sockets of this machine, both ends of each connection.
pub(crate) fn kernel_socket_bytes() -> Option<u64> {
    let page = kilobytes(
        &fs::read_to_string("/proc/self/smaps").ok()?,
        "KernelPageSize:",
    )?;
    let pages = socket_pages(&fs::read_to_string("/proc/net/sockstat").ok()?)?;
    Some(pages * page)
}

fn socket_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line
        .split_ascii_whitespace()
        .skip_while(|word| *word != "mem");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(
            kilobytes("Rss:  9 kB\nPss:       12 kB\n", "Pss:"),
            Some(12 * 1_024)
        );
        let sockstat =
            "sockets: used 3\nTCP: inuse 4 orphan 0 tw 0 alloc 5 mem 17\nUDP: inuse 1 mem 2\n";
        assert_eq!(socket_pages(sockstat), Some(17));
    }

    #[test]
    fn this_process_has_figures() {
        let process = Process::open(std::process::id()).unwrap();
        assert!(process.cpu().unwrap() > Duration::ZERO);
        assert!(process.memory_bytes().unwrap() > 0);
        assert!(process.descriptors().unwrap() > 2);
        assert!(kernel_socket_bytes().is_some());
    }

    #[test]
    fn no_process_is_a_mistake_of_the_caller() {
        assert!(Process::open(u32::MAX).unwrap_err().is::<Usage>());
    }
}
