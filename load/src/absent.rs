//! Events for users who are not connected: what it costs the server to find that nobody wants them.
//!
//! They leave no trace at a client. So the server's work is over when one more event, which is for
//! somebody who is connected, has come.

use std::ops::Range;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::bench::{Bench, PATIENCE};
use crate::cli::{Absent, Common, Usage};
use crate::events::{Ledger, first_number};
use crate::inject::Injector;
use crate::report::{Report, micros_each};

/// Their lines are in memory before the first is sent, some 170 bytes each.
const EVENTS_MAX: u64 = 5_000_000;
/// Sent before, so that the server's code is warm.
const WARM_UP: u64 = 10_000;
const TURN: Duration = Duration::from_millis(20);

pub(crate) fn run(common: &Common, plan: &Absent) -> anyhow::Result<Report> {
    let Some(address) = common.inject else {
        return Err(Usage("absent needs --inject".to_owned()).into());
    };
    if !(1..=EVENTS_MAX).contains(&plan.events) {
        let message = format!("--events is not within 1 and {EVENTS_MAX}");
        return Err(Usage(message).into());
    }
    let mut bench = Bench::new(common, plan.connections, plan.connections)?;
    let mut injector = Injector::connect(address, bench.clients.registry())?;
    bench.open(0..plan.connections, 1)?;

    let first = first_number();
    let mut sent = send(&mut bench, &mut injector, first..first + WARM_UP, plan.rate)?;
    // Otherwise the report is one of the warm-up, and of failure.
    if sent.ledger.outstanding() == 0 {
        let first = sent.ledger.next_number();
        sent = send(
            &mut bench,
            &mut injector,
            first..first + plan.events,
            plan.rate,
        )?;
    }
    Ok(report(&bench, &sent))
}

struct Sent {
    events: u64,
    /// Until the marker's event came, if it did.
    elapsed: Option<Duration>,
    cpu: Option<Duration>,
    ledger: Ledger,
}

fn report(bench: &Bench, sent: &Sent) -> Report {
    let seconds = sent.elapsed.map(|elapsed| elapsed.as_secs_f64());
    let cpu = sent.cpu.filter(|_| seconds.is_some());
    let mut report = Report::new("absent");
    report.count("connections", bench.users.len() as u64);
    report.count("events", sent.events);
    report.number(
        "events_per_second",
        seconds.map(|seconds| sent.events as f64 / seconds),
    );
    report.number(
        "until_routed_ms",
        sent.elapsed.map(|elapsed| elapsed.as_secs_f64() * 1e3),
    );
    report.number(
        "server_cpu_us_per_event",
        cpu.map(|cpu| micros_each(cpu, sent.events)),
    );
    let cores = cpu.zip(seconds);
    report.number(
        "server_cores_used",
        cores.map(|(cpu, seconds)| cpu.as_secs_f64() / seconds),
    );
    sent.ledger.report(&mut report);
    bench.report_troubles(&mut report);
    report
}

/// Sends an event of each of these numbers to nobody, and the next one to the marker.
fn send(
    bench: &mut Bench,
    injector: &mut Injector,
    mut numbers: Range<u64>,
    rate: Option<f64>,
) -> anyhow::Result<Sent> {
    let mut ledger = Ledger::new(numbers.end, bench.users.clone(), 1);
    let events = numbers.end - numbers.start;
    if rate.is_none() {
        for number in numbers.by_ref() {
            injector.add(number, Uuid::new_v4());
        }
    }
    let marker = bench.users.len() / 2;
    let cpu = bench.cpu()?;
    let begun = Instant::now();
    while let Some(rate) = rate.filter(|_| !numbers.is_empty()) {
        // Not negative, and as many as fit into memory.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        let sent = events - (numbers.end - numbers.start);
        for number in numbers
            .by_ref()
            .take(usize::try_from(due.saturating_sub(sent))?)
        {
            injector.add(number, Uuid::new_v4());
        }
        injector.flush()?;
        bench.pause(TURN, &mut ledger.listener())?;
    }
    injector.add(ledger.sent(marker, Instant::now()), bench.users[marker]);
    let (mut left, mut since) = (injector.left(), begun);
    while ledger.outstanding() > 0 && since.elapsed() < PATIENCE {
        injector.flush()?;
        bench.clients.turn(TURN, &mut ledger.listener())?;
        if injector.left() < left {
            (left, since) = (injector.left(), Instant::now());
        }
    }
    Ok(Sent {
        events,
        elapsed: ledger.last_arrival().map(|last| last - begun),
        cpu: bench.cpu_since(cpu)?,
        ledger,
    })
}
