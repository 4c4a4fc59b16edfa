//! What an open connection costs that is sent nothing.

use std::time::Duration;

use crate::bench::{Bench, ignore};
use crate::cli::{Common, Idle};
use crate::process::kernel_socket_bytes;
use crate::report::Report;

pub(crate) fn run(common: &Common, plan: &Idle) -> anyhow::Result<Report> {
    let mut bench = Bench::new(common, plan.connections, plan.connections)?;
    let between = Duration::from_millis(plan.settle_ms);
    bench.warm_up()?;
    let memory_before = bench.steady_memory(between)?;
    let sockets_before = kernel_socket_bytes();

    let opened = bench.open(0..plan.connections, 1)?;
    bench.pause(between, &mut ignore)?;
    let memory = bench.steady_memory(between)?;
    let sockets = kernel_socket_bytes();

    let each = |now: Option<u64>, before: Option<u64>| {
        let (now, before) = now.zip(before)?;
        Some((now as f64 - before as f64) / plan.connections as f64)
    };
    let mut report = Report::new("idle");
    report.count("connections", plan.connections as u64);
    report.number(
        "memory_bytes_before",
        memory_before.map(|bytes| bytes as f64),
    );
    report.number("memory_bytes", memory.map(|bytes| bytes as f64));
    report.number("memory_bytes_per_connection", each(memory, memory_before));
    report.number(
        "kernel_socket_bytes_per_connection",
        each(sockets, sockets_before),
    );
    opened.report(&mut report, plan.connections);
    report.times("handshake_us", &bench.clients.counts.handshake_us);
    bench.report_troubles(&mut report);
    Ok(report)
}
