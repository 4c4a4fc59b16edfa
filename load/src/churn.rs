//! Whether memory grows with users who have left.

use std::time::Duration;

use crate::bench::Bench;
use crate::cli::{Churn, Common};
use crate::report::Report;

pub(crate) fn run(common: &Common, plan: &Churn) -> anyhow::Result<Report> {
    let (users, rounds) = (plan.connections, plan.rounds as usize);
    let mut bench = Bench::new(common, users * rounds, users)?;
    let descriptors = bench.descriptors()?;
    let mut memory = Vec::with_capacity(rounds);
    for round in 0..rounds {
        bench.open(round * users..(round + 1) * users, 1)?;
        bench.close(descriptors)?;
        memory.extend(bench.steady_memory(Duration::from_millis(plan.settle_ms))?);
    }

    let mut report = Report::new("churn");
    report.count("connections", users as u64);
    report.count("rounds", rounds as u64);
    report.numbers("memory_bytes_after_rounds", &memory);
    report.number("growth_bytes_per_user", growth(&memory, users));
    bench.report_troubles(&mut report);
    Ok(report)
}

/// From after the second round, when what is kept for reuse is there, to after the last.
fn growth(memory: &[u64], users_per_round: usize) -> Option<f64> {
    let [_, second, rest @ ..] = memory else {
        return None;
    };
    let users = rest.len() * users_per_round;
    Some((*rest.last()? as f64 - *second as f64) / users as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_counted_from_the_second_round() {
        assert_eq!(growth(&[100, 1_000, 1_500, 3_000], 100), Some(10.0));
        assert_eq!(growth(&[100, 1_000], 100), None);
        assert_eq!(growth(&[], 100), None);
    }
}
