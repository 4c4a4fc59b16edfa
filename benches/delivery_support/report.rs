//! Figures as a table for people and as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::stack::Stack;

/// Collects the parts; each is printed and written when it is done.
pub(crate) struct Report {
    environment: Map<String, Value>,
    path: PathBuf,
}

impl Report {
    /// Says where the figures come from.
    pub(crate) async fn begin(stack: &Stack, test: bool) -> anyhow::Result<Self> {
        let mut connection = stack.connect("postgres").await;
        let postgresql: String = sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut connection)
            .await?;
        let flush_us = micros(stack.flush_time()?);
        let cores = fs::read_to_string("/proc/cpuinfo")
            .unwrap_or_default()
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        println!("cores: {cores}; {}", stack.pinning.description);
        println!("PostgreSQL {postgresql}, fsync on, a flush of 8 KiB: {flush_us} µs (median)");
        if !stack.settings.is_empty() {
            println!("settings of PostgreSQL: {}", stack.settings);
        }
        println!("descriptors of the load process: {}", stack.descriptors);
        let mut environment = Map::new();
        environment.insert("cores".into(), json!(cores));
        environment.insert("pinned".into(), json!(stack.pinning.description));
        environment.insert("postgresql".into(), json!(postgresql));
        environment.insert("postgresql_settings".into(), json!(stack.settings));
        environment.insert("flush_us".into(), json!(flush_us));
        environment.insert("descriptors".into(), json!(stack.descriptors));
        let name = if test {
            "delivery-test.json"
        } else {
            "delivery.json"
        };
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Ok(Self {
            environment,
            path: temporary.with_file_name("bench").join(name),
        })
    }

    /// Prints a part and puts it into the file, beside the other parts that are there.
    pub(crate) fn add(
        &mut self,
        part: &str,
        table: &Table,
        rows: &[Value],
        load_average_before: &str,
    ) -> anyhow::Result<()> {
        let after = load_average();
        println!("\n{part} (load average {load_average_before} before, {after} after)");
        table.print();
        let mut environment = self.environment.clone();
        environment.insert("load_average".into(), json!([load_average_before, after]));
        let mut parts: Map<String, Value> = fs::read(&self.path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        parts.insert(
            part.to_owned(),
            json!({ "environment": environment, "rows": rows }),
        );
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(fs::write(&self.path, serde_json::to_vec_pretty(&parts)?)?)
    }
}

/// Of the last minute.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// Columns as wide as they need to be.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self(vec![heads.iter().map(ToString::to_string).collect()])
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    fn print(&self) {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell: &String| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.0 {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect();
            println!("  {}", cells.join("  "));
        }
    }
}

/// Exact percentiles: all samples are kept.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The smallest sample that so many per mille of all are not above; zero without any.
    pub(crate) fn per_mille(&self, share: usize) -> Duration {
        let rank = (self.0.len() * share).div_ceil(1_000).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.per_mille(500)
    }

    pub(crate) fn max(&self) -> Duration {
        self.per_mille(1_000)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "p50_us": micros(self.median()),
            "p99_us": micros(self.per_mille(990)),
            "p999_us": micros(self.per_mille(999)),
            "max_us": micros(self.max()),
        })
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// In milliseconds, as precise as it makes sense.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1_000.0)
}

/// CPU time as a share of one core over so long, in percent.
pub(crate) fn percent(cpu: Duration, over: Duration) -> u32 {
    // A share of a machine's cores fits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let share = (cpu.as_secs_f64() / over.as_secs_f64() * 100.0).round() as u32;
    share
}
