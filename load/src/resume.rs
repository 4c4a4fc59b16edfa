//! All clients come back at once with their cursors, and each has missed one event.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::bench::{Bench, PATIENCE};
use crate::cli::{Common, Storm, Usage};
use crate::events::{Ledger, first_number};
use crate::handshake::Caller;
use crate::report::{Report, micros_each, millis};
use crate::source::Source;

/// Handshakes in flight while the clients come for their cursors.
const OPENING_MAX: usize = 256;
/// Events that are committed together while everybody is away.
const ROWS: usize = 100;
/// Before anybody comes for a cursor. A cursor may lie a moment back, and what was written to prepare
/// the database, or by a run before this one, is not what is to be replayed.
const SETTLE: Duration = Duration::from_secs(3);
const TURN: Duration = Duration::from_millis(20);
/// After everything has come, for duplicates to come too.
const AFTERMATH: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Hello {
    #[serde(rename = "type")]
    kind: String,
    cursor: Option<Box<str>>,
}

pub(crate) fn run(common: &Common, plan: &Storm) -> anyhow::Result<Report> {
    if common.database_url.is_none() {
        return Err(Usage("storm --cursors needs --database-url".to_owned()).into());
    }
    let clients = plan.connections;
    let mut bench = Bench::with_opening(common, clients, clients, clients)?;
    let first = first_number();
    let numbers = first..first + clients as u64;
    let mut source = Source::open(common, bench.clients.registry(), &bench.users, numbers)?;

    std::thread::sleep(SETTLE);
    let cursors = cursors(&mut bench)?;
    let mut ledger = Ledger::new(first, bench.users.clone(), 1);
    commit_for_all(&bench, &mut source, &mut ledger)?;

    let cpu = bench.cpu()?;
    bench.clients.counts.handshake_us.reset();
    bench.clients.counts.retried = 0;
    let begun = Instant::now();
    let callers = bench
        .users
        .iter()
        .zip(cursors)
        .map(|(user, cursor)| Caller {
            user: *user,
            v1: true,
            since: Some(cursor),
        });
    bench.clients.connect(callers.collect::<Vec<_>>());
    let elapsed = until_resumed(&mut bench, &mut ledger, begun)?;
    let cpu = bench.cpu_since(cpu)?;
    bench.pause(AFTERMATH, &mut ledger.listener())?;

    let mut report = Report::new("storm");
    report.count("connections", clients as u64);
    report.number("all_resumed_ms", millis(elapsed));
    report.number(
        "cpu_us_per_client",
        cpu.map(|cpu| micros_each(cpu, clients as u64)),
    );
    report.times("handshake_us", &bench.clients.counts.handshake_us);
    report.count("retried", bench.clients.counts.retried);
    ledger.report(&mut report);
    Ok(report)
}

/// Connects everybody, takes the cursors of the first frames and drops all connections.
fn cursors(bench: &mut Bench) -> anyhow::Result<Vec<Box<str>>> {
    let descriptors = bench.descriptors()?;
    let mut cursors: Vec<Option<Box<str>>> = vec![None; bench.users.len()];
    let mut missing = cursors.len();
    let callers: Vec<Caller> = bench
        .users
        .iter()
        .map(|user| Caller {
            user: *user,
            v1: true,
            since: None,
        })
        .collect();
    let mut on_data = |client: usize, payload: &[u8], _| {
        if cursors[client].is_some() {
            return Ok(());
        }
        let hello: Hello = serde_json::from_slice(payload).context("the first frame")?;
        ensure!(
            hello.kind == "hello",
            "the first frame is {}, not hello",
            hello.kind
        );
        cursors[client] = Some(hello.cursor.context("the server has no log: no cursor")?);
        missing -= 1;
        Ok(())
    };
    bench.clients.limit_opening(OPENING_MAX);
    bench.open_callers(callers, &mut on_data)?;
    bench.clients.limit_opening(usize::MAX);
    ensure!(missing == 0, "{missing} clients were told no cursor");
    bench.close(descriptors)?;
    Ok(cursors.into_iter().flatten().collect())
}

/// One event for each user, all committed when this returns.
fn commit_for_all(bench: &Bench, source: &mut Source, ledger: &mut Ledger) -> anyhow::Result<()> {
    let now = Instant::now();
    let users: Vec<usize> = (0..bench.users.len()).collect();
    for users in users.chunks(ROWS) {
        let first = ledger.next_number();
        for user in users {
            ledger.sent(*user, now);
        }
        source.send(first, users.iter().map(|user| bench.users[*user]).collect())?;
    }
    let mut since = (Instant::now(), 0);
    while source.committed() < bench.users.len() as u64 {
        source.flush()?;
        if source.committed() > since.1 {
            since = (Instant::now(), source.committed());
        }
        ensure!(since.0.elapsed() < PATIENCE, "the database does not commit");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Until every client has what it missed, or nothing has come for ten seconds; returns how long.
fn until_resumed(
    bench: &mut Bench,
    ledger: &mut Ledger,
    begun: Instant,
) -> anyhow::Result<Duration> {
    let mut since = (begun, ledger.outstanding(), 0);
    while ledger.outstanding() > 0 && since.0.elapsed() < PATIENCE {
        bench.clients.turn(TURN, &mut ledger.listener())?;
        let (missing, open) = (ledger.outstanding(), bench.clients.open());
        if (missing, open) != (since.1, since.2) {
            since = (Instant::now(), missing, open);
        }
    }
    Ok(ledger
        .last_arrival()
        .map_or(begun.elapsed(), |last| last - begun))
}
