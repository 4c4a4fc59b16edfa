//! What all commands do: open connections, wait, close them, read the server's figures.
//!
//! Never waits without an end: ten seconds without progress are an error, except where the caller
//! looks for progress itself.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::cli::Common;
use crate::clients::{Clients, ensure_descriptors};
use crate::handshake::Caller;
use crate::process::Process;
use crate::report::{Report, micros_each};
use crate::target::Target;

/// Without any progress for so long, what is missing will not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const OPENING_MAX: usize = 256;
/// For what a server does for a client after its 101, such as a first frame: it belongs to the
/// handshake's CPU time.
const TRAILING: Duration = Duration::from_millis(100);
const TURN: Duration = Duration::from_millis(20);
/// Connections that are opened and closed before memory is read, so that code pages are loaded and
/// pools are filled.
const WARM_UP: usize = 200;
/// Two readings of the memory agree when they differ by no more than this, or a thousandth.
const STEADY_BYTES: u64 = 64 << 10;
/// After so many readings memory is taken as it is.
const READINGS_MAX: usize = 10;

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) clients: Clients,
    pub(crate) users: Vec<Uuid>,
    pub(crate) process: Option<Process>,
}

/// What opening connections took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Option<Duration>,
}

impl Bench {
    /// With `users` users and place for `connections` connections at a time, none of them open.
    pub(crate) fn new(common: &Common, users: usize, connections: usize) -> anyhow::Result<Self> {
        Self::with_opening(common, users, connections, OPENING_MAX)
    }

    /// The same, with another default for the number of handshakes in flight.
    pub(crate) fn with_opening(
        common: &Common,
        users: usize,
        connections: usize,
        opening: usize,
    ) -> anyhow::Result<Self> {
        ensure_descriptors(connections.max(WARM_UP))?;
        let target = Target::parse(&common.url)?;
        Ok(Self {
            clients: Clients::new(target, common.sources, common.opening.unwrap_or(opening))?,
            users: users_of(common.seed, users),
            process: common.pid.map(Process::open).transpose()?,
        })
    }

    /// Connects `devices` clients of each of these users, and waits until all are open. The client
    /// with index `i` is of user `i / devices`, if there were none before.
    pub(crate) fn open(&mut self, users: Range<usize>, devices: usize) -> anyhow::Result<Opened> {
        let callers = users.flat_map(|user| {
            let user = self.users[user];
            std::iter::repeat_with(move || Caller {
                user,
                v1: false,
                since: None,
            })
            .take(devices)
        });
        self.open_callers(callers.collect(), &mut ignore)
    }

    /// The same for any callers, handing on what they are sent meanwhile.
    pub(crate) fn open_callers(
        &mut self,
        callers: Vec<Caller>,
        on_data: &mut impl FnMut(usize, &[u8], Instant) -> anyhow::Result<()>,
    ) -> anyhow::Result<Opened> {
        let cpu = self.cpu()?;
        let begun = Instant::now();
        let wanted = self.clients.open() + callers.len();
        self.clients.connect(callers);
        let (mut open, mut since) = (self.clients.open(), begun);
        while !self.clients.settled() {
            self.clients.turn(TURN, on_data)?;
            if self.clients.open() > open {
                (open, since) = (self.clients.open(), Instant::now());
            }
            ensure!(
                since.elapsed() < PATIENCE,
                "{open} of {wanted} connections are open and no other was for {} s ({} attempts failed)",
                PATIENCE.as_secs(),
                self.clients.counts.retried
            );
        }
        let elapsed = begun.elapsed();
        self.pause(TRAILING, on_data)?;
        let open = self.clients.open();
        ensure!(
            open == wanted,
            "the server has ended {} of {wanted} connections",
            wanted - open
        );
        Ok(Opened {
            elapsed,
            cpu: self.cpu_since(cpu)?,
        })
    }

    /// Lets the connections live for a time.
    pub(crate) fn pause(
        &mut self,
        time: Duration,
        on_data: &mut impl FnMut(usize, &[u8], Instant) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            // A whole millisecond at least: epoll counts in them.
            self.clients
                .turn(left.clamp(Duration::from_millis(1), TURN), on_data)?;
        }
        Ok(())
    }

    /// Drops all connections and waits until the server has done the same: until it has no more
    /// descriptors than `descriptors`.
    pub(crate) fn close(&mut self, descriptors: Option<usize>) -> anyhow::Result<()> {
        self.clients.clear();
        let (Some(process), Some(wanted)) = (&self.process, descriptors) else {
            std::thread::sleep(TRAILING);
            return Ok(());
        };
        let (mut fewest, mut since) = (usize::MAX, Instant::now());
        loop {
            let now = process.descriptors()?;
            if now <= wanted {
                return Ok(());
            }
            if now < fewest {
                (fewest, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                bail!("the server has {now} descriptors, {wanted} before: it does not let go");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Opens and closes some connections, so that later ones are not the first.
    pub(crate) fn warm_up(&mut self) -> anyhow::Result<()> {
        let callers = (0..WARM_UP).map(|_| Caller {
            user: Uuid::new_v4(),
            v1: false,
            since: None,
        });
        let descriptors = self.descriptors()?;
        self.open_callers(callers.collect(), &mut ignore)?;
        self.close(descriptors)?;
        self.clients.counts.handshake_us.reset();
        self.clients.counts.retried = 0;
        Ok(())
    }

    /// The server's memory, when two readings agree.
    pub(crate) fn steady_memory(&mut self, between: Duration) -> anyhow::Result<Option<u64>> {
        let Some(process) = self.process.clone() else {
            return Ok(None);
        };
        let mut before = process.memory_bytes()?;
        for _ in 1..READINGS_MAX {
            self.pause(between, &mut ignore)?;
            let now = process.memory_bytes()?;
            if now.abs_diff(before) <= STEADY_BYTES.max(now / 1_000) {
                return Ok(Some(now));
            }
            before = now;
        }
        Ok(Some(before))
    }

    pub(crate) fn descriptors(&self) -> anyhow::Result<Option<usize>> {
        self.process.as_ref().map(Process::descriptors).transpose()
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.process.as_ref().map(Process::cpu).transpose()
    }

    /// CPU time that the server has taken since an earlier reading.
    pub(crate) fn cpu_since(&self, earlier: Option<Duration>) -> anyhow::Result<Option<Duration>> {
        let now = self.cpu()?;
        Ok(now
            .zip(earlier)
            .map(|(now, earlier)| now.saturating_sub(earlier)))
    }

    /// What is only worth a line when it happened.
    pub(crate) fn report_troubles(&self, report: &mut Report) {
        let counts = &self.clients.counts;
        for (name, count) in [
            ("retried", counts.retried),
            ("ended_by_server", counts.ended_by_server),
        ] {
            if count > 0 {
                report.count(name, count);
            }
        }
    }
}

impl Opened {
    pub(crate) fn report(self, report: &mut Report, connections: usize) {
        let connections = connections as u64;
        let cpu = self.cpu.map(|cpu| micros_each(cpu, connections));
        report.number("cpu_us_per_handshake", cpu);
        report.number(
            "opened_per_second",
            connections as f64 / self.elapsed.as_secs_f64(),
        );
    }
}

/// For when nothing that comes matters.
// Where something does, it may be an error.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn ignore(_: usize, _: &[u8], _: Instant) -> anyhow::Result<()> {
    Ok(())
}

/// The users of a seed: those of a smaller number are the first of a larger one.
fn users_of(seed: u64, users: usize) -> Vec<Uuid> {
    let mut random = StdRng::seed_from_u64(seed);
    let next = || uuid::Builder::from_random_bytes(random.random()).into_uuid();
    std::iter::repeat_with(next).take(users).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_users() {
        let users = users_of(7, 3);
        assert_eq!(users, users_of(7, 5)[..3]);
        assert_ne!(users, users_of(8, 3));
        assert!(users.iter().all(|user| user.get_version_num() == 4));
    }
}
