//! Events to connected users: as fast as they are taken, or at a rate.

use crate::bench::Bench;
use crate::cli::{Aim, Common, Fanout, Latency, Usage};
use crate::drive::{Driven, Pace, Plan, drive};
use crate::events::{Ledger, Picker, first_number};
use crate::report::{Report, micros_each};
use crate::source::Source;
use crate::target::Target;

const WARM_UP_MIN: u64 = 1_000;
/// Events under way during a warm-up that precedes a measurement at a rate.
const WARM_UP_WINDOW: u64 = 64;

/// A measurement, whichever command it is of.
struct Run<'a> {
    command: &'static str,
    connections: usize,
    aim: &'a Aim,
    pace: Pace,
    events: u64,
}

pub(crate) fn run(common: &Common, plan: &Fanout) -> anyhow::Result<Report> {
    measure(
        common,
        &Run {
            command: "fanout",
            connections: plan.connections,
            aim: &plan.aim,
            pace: plan
                .rate
                .map_or(Pace::Window(plan.window), Pace::EventsPerSecond),
            events: plan.events,
        },
    )
}

pub(crate) fn run_latency(common: &Common, plan: &Latency) -> anyhow::Result<Report> {
    let events = plan.rate * plan.seconds;
    // As many as fit into memory, and `check` refuses none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let events = events as u64;
    measure(
        common,
        &Run {
            command: "latency",
            connections: plan.connections,
            aim: &plan.aim,
            pace: Pace::EventsPerSecond(plan.rate),
            events,
        },
    )
}

fn measure(common: &Common, run: &Run<'_>) -> anyhow::Result<Report> {
    let devices = run.aim.devices as usize;
    let users = run.connections / devices;
    let busy = run.aim.busy.unwrap_or(users);
    let plan = plan(common, run, users, busy)?;
    let warm_up = run
        .aim
        .warm_up
        .unwrap_or_else(|| WARM_UP_MIN.max(run.events / 10));

    let mut bench = Bench::new(common, users, run.connections)?;
    let first = first_number();
    let numbers = first..first + warm_up + run.events;
    if let Some(url) = &run.aim.beside {
        bench.clients.beside(Target::parse(url)?);
    }
    let mut source = Source::open(common, bench.clients.registry(), &bench.users, numbers)?;
    bench.open(0..users, devices)?;

    let mut ledger = Ledger::new(first, bench.users.clone(), devices);
    let mut picker = Picker::new(common.seed, busy, run.aim.zipf);
    let warming = Plan {
        events: warm_up,
        pace: match plan.pace {
            Pace::Window(window) => Pace::Window(window),
            Pace::EventsPerSecond(_) => Pace::Window(WARM_UP_WINDOW.max(plan.batch)),
        },
        ..plan
    };
    let mut driven = drive(&mut bench, &mut source, &mut ledger, &mut picker, warming)?;
    let mut driven_plan = warming;
    // What was lost so early is lost all the time, and would only be waited for again.
    if ledger.outstanding() == 0 {
        ledger.reset();
        driven = drive(&mut bench, &mut source, &mut ledger, &mut picker, plan)?;
        driven_plan = plan;
    }
    Ok(report(run, driven_plan, &bench, &ledger, &driven))
}

/// Refuses what cannot be measured.
fn plan(common: &Common, run: &Run<'_>, users: usize, busy: usize) -> anyhow::Result<Plan> {
    let burst = u64::from(run.aim.burst);
    let rows = if common.database_url.is_some() {
        u64::from(common.rows)
    } else {
        1
    };
    let plan = Plan {
        events: run.events,
        pace: run.pace,
        burst,
        batch: burst.max(rows),
    };
    let devices = run.aim.devices as usize;
    let mistake = if users == 0 || !run.connections.is_multiple_of(devices) {
        "--connections is no multiple of --devices"
    } else if busy == 0 || busy > users {
        "--busy is none of the users, or more than there are"
    } else if run.aim.beside.is_some() && devices != 2 {
        "--beside is for two devices of each user: give --devices 2"
    } else if run.events == 0 {
        "there are no events to send"
    } else if run
        .aim
        .zipf
        .is_some_and(|exponent| !(0.0..=10.0).contains(&exponent))
    {
        "--zipf is not within 0 and 10"
    } else {
        match run.pace {
            Pace::EventsPerSecond(rate) if !(0.001..=1e7).contains(&rate) => {
                "--rate is not within 0.001 and 10000000"
            }
            Pace::Window(window) if window < plan.batch => {
                "--window is less than --burst or --rows, which are sent together"
            }
            _ => return Ok(plan),
        }
    };
    Err(Usage(mistake.to_owned()).into())
}

fn report(run: &Run<'_>, plan: Plan, bench: &Bench, ledger: &Ledger, driven: &Driven) -> Report {
    let (delivered, seconds) = (ledger.counts.delivered, driven.elapsed.as_secs_f64());
    let mut report = Report::new(run.command);
    report.count("connections", run.connections as u64);
    report.count("users", bench.users.len() as u64);
    if let Some(busy) = run.aim.busy {
        report.count("busy_users", busy as u64);
    }
    if let Pace::EventsPerSecond(rate) = plan.pace {
        report.number("rate_events_per_second", rate);
    }
    report.count("events", driven.events);
    report.count("deliveries", delivered);
    report.number("delivered_per_second", delivered as f64 / seconds);
    ledger.report(&mut report);
    report.times("latency_us", &ledger.latency_us);
    if run.aim.beside.is_some() {
        report.times("beside_later_us", &ledger.later_us);
    }
    if matches!(plan.pace, Pace::EventsPerSecond(_)) {
        report.count(
            "generator_late_p99_us",
            driven.late_us.value_at_quantile(0.99),
        );
    }
    let (cpu, watched) = (driven.cpu, driven.watched.as_secs_f64());
    report.number(
        "server_cpu_us_per_delivery",
        cpu.map(|cpu| micros_each(cpu, delivered)),
    );
    report.number(
        "server_cores_used",
        cpu.map(|cpu| cpu.as_secs_f64() / watched),
    );
    report.number("load_cores_used", driven.own_cpu.as_secs_f64() / watched);
    bench.report_troubles(&mut report);
    report
}
