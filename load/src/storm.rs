//! All clients connect at once, and nothing was there before them.

use std::time::Duration;

use crate::bench::Bench;
use crate::cli::{Common, Storm};
use crate::report::{Report, micros_each, millis};

pub(crate) fn run(common: &Common, plan: &Storm) -> anyhow::Result<Report> {
    let clients = plan.connections;
    let mut bench = Bench::with_opening(common, clients, clients, clients)?;
    let descriptors = bench.descriptors()?;
    let (mut elapsed, mut cpu) = (Vec::new(), Some(Duration::ZERO));
    for round in 0..plan.rounds {
        if round > 0 {
            bench.close(descriptors)?;
        }
        let opened = bench.open(0..clients, 1)?;
        elapsed.push(opened.elapsed);
        cpu = cpu.zip(opened.cpu).map(|(sum, cpu)| sum + cpu);
    }

    let rounds = u64::from(plan.rounds);
    let mut report = Report::new("storm");
    report.count("connections", clients as u64);
    report.count("rounds", rounds);
    let slowest = elapsed.iter().max().copied().unwrap_or_default();
    let mean = elapsed.iter().sum::<Duration>() / plan.rounds;
    report.number("all_open_ms", millis(mean));
    report.number("all_open_max_ms", millis(slowest));
    let handshakes = clients as u64 * rounds;
    report.number(
        "cpu_us_per_handshake",
        cpu.map(|cpu| micros_each(cpu, handshakes)),
    );
    report.times("handshake_us", &bench.clients.counts.handshake_us);
    report.count("retried", bench.clients.counts.retried);
    Ok(report)
}
