//! Connections that take what others send: what their server costs another program.

use std::time::Duration;

use uuid::Uuid;

use crate::bench::Bench;
use crate::cli::{Common, Listen};
use crate::report::Report;

pub(crate) fn run(common: &Common, plan: &Listen) -> anyhow::Result<Report> {
    let mut bench = Bench::new(common, plan.connections, plan.connections)?;
    bench.users = (plan.first..plan.first + plan.connections)
        .map(numbered)
        .collect::<Result<_, _>>()?;
    let opened = bench.open(0..plan.connections, 1)?;
    let mut messages = 0_u64;
    let time = Duration::try_from_secs_f64(plan.seconds)?;
    bench.pause(time, &mut |_, _, _| {
        messages += 1;
        Ok(())
    })?;
    let mut report = Report::new("listen");
    report.count("connections", plan.connections as u64);
    report.count("messages", messages);
    opened.report(&mut report, plan.connections);
    bench.report_troubles(&mut report);
    Ok(report)
}

/// The id whose digits are those of the number.
fn numbered(number: usize) -> Result<Uuid, uuid::Error> {
    Uuid::try_parse(&format!("{number:0>32}"))
}
