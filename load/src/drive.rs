//! When events are sent: an open loop at a rate, or a closed one with a window.
//!
//! At a rate, the moments at which events are due are fixed before the first is sent. Latency counts
//! from there, whether or not the server, or this program, kept up: what waits is not left out of the
//! count. Without a rate, as many events are under way as the window admits.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::bench::{Bench, PATIENCE};
use crate::events::{Ledger, Picker};
use crate::process::Process;
use crate::report::{histogram, micros};
use crate::source::Source;

/// epoll counts in milliseconds: what is due sooner is waited for without sleeping.
const SPIN: Duration = Duration::from_millis(2);
/// The longest that a turn may wait, so that the end of patience and a writer's error are seen.
const TURN: Duration = Duration::from_millis(50);
/// After everything has come, for duplicates to come too.
const AFTERMATH: Duration = Duration::from_millis(200);

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) events: u64,
    pub(crate) pace: Pace,
    /// Events in a row for the same user.
    pub(crate) burst: u64,
    /// Events that are sent together.
    pub(crate) batch: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    EventsPerSecond(f64),
    /// Events that may be under way.
    Window(u64),
}

/// How it went, as far as the ledger does not know.
#[derive(Debug)]
pub(crate) struct Driven {
    /// Events that were sent; fewer than planned if the wait for the window was in vain.
    pub(crate) events: u64,
    /// From the first event to the last arrival.
    pub(crate) elapsed: Duration,
    /// The same and the wait for what was lost.
    pub(crate) watched: Duration,
    /// CPU time of the server while it was watched.
    pub(crate) cpu: Option<Duration>,
    /// CPU time of this program, waiting without sleeping included.
    pub(crate) own_cpu: Duration,
    /// From when a batch was due to when it was sent, in microseconds.
    pub(crate) late_us: Histogram<u64>,
}

/// Sends the events and waits until all have arrived, or until nothing has for ten seconds.
pub(crate) fn drive(
    bench: &mut Bench,
    source: &mut Source,
    ledger: &mut Ledger,
    picker: &mut Picker,
    plan: Plan,
) -> anyhow::Result<Driven> {
    let cpu = bench.cpu()?;
    let own = Process::open(std::process::id())?;
    let own_cpu = own.cpu()?;
    let begun = Instant::now();
    let mut sender = Sender {
        plan,
        begun,
        sent: 0,
        late_us: histogram(),
    };
    let (mut missing, mut since) = (0, begun);
    loop {
        let before = sender.sent;
        sender.send_due(bench, source, ledger, picker)?;
        source.flush()?;
        let done = sender.sent == plan.events && ledger.unfinished() == 0;
        if done {
            break;
        }
        bench.clients.turn(sender.wait(), &mut ledger.listener())?;
        if sender.sent > before || ledger.outstanding() != missing {
            (missing, since) = (ledger.outstanding(), Instant::now());
        } else if since.elapsed() > PATIENCE {
            break;
        }
    }
    // A server that has died meanwhile has no CPU time, but what it had delivered is still told.
    let cpu = bench.cpu_since(cpu).unwrap_or(None);
    let watched = begun.elapsed();
    let own_cpu = own.cpu()?.saturating_sub(own_cpu);
    let last = ledger.last_arrival().unwrap_or(begun);
    bench.pause(AFTERMATH, &mut ledger.listener())?;
    Ok(Driven {
        elapsed: last - begun,
        events: sender.sent,
        watched,
        cpu,
        own_cpu,
        late_us: sender.late_us,
    })
}

#[derive(Debug)]
struct Sender {
    plan: Plan,
    begun: Instant,
    sent: u64,
    late_us: Histogram<u64>,
}

impl Sender {
    fn send_due(
        &mut self,
        bench: &Bench,
        source: &mut Source,
        ledger: &mut Ledger,
        picker: &mut Picker,
    ) -> anyhow::Result<()> {
        while self.sent < self.plan.events {
            let now = Instant::now();
            let due = match self.plan.pace {
                Pace::EventsPerSecond(rate) => due(self.begun, self.sent, rate),
                Pace::Window(window) if ledger.unfinished() + self.batch() <= window => now,
                Pace::Window(_) => return Ok(()),
            };
            if due > now {
                return Ok(());
            }
            self.late_us.saturating_record(micros(now - due));
            self.send(due, bench, source, ledger, picker)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        due: Instant,
        bench: &Bench,
        source: &mut Source,
        ledger: &mut Ledger,
        picker: &mut Picker,
    ) -> anyhow::Result<()> {
        let (first, batch) = (ledger.next_number(), self.batch());
        let mut users = Vec::with_capacity(usize::try_from(batch)?);
        let mut user = 0;
        for place in 0..batch {
            if place % self.plan.burst == 0 {
                user = picker.user();
            }
            ledger.sent(user, due);
            users.push(bench.users[user]);
        }
        self.sent += batch;
        source.send(first, users)
    }

    /// Events of the next batch.
    fn batch(&self) -> u64 {
        self.plan.batch.min(self.plan.events - self.sent)
    }

    /// How long nothing is to be sent.
    fn wait(&self) -> Duration {
        let Pace::EventsPerSecond(rate) = self.plan.pace else {
            return TURN;
        };
        if self.sent == self.plan.events {
            return TURN;
        }
        let left = due(self.begun, self.sent, rate).saturating_duration_since(Instant::now());
        if left < SPIN {
            Duration::ZERO
        } else {
            left.saturating_sub(SPIN / 2).min(TURN)
        }
    }
}

fn due(begun: Instant, event: u64, events_per_second: f64) -> Instant {
    begun + Duration::from_secs_f64(event as f64 / events_per_second)
}
