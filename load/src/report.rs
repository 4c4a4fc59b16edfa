//! Figures with their names, as aligned text or as one JSON object.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Longer times are counted as this one: far beyond the patience of any command.
const LONGEST_US: u64 = 600_000_000;
/// Digits of a time that are kept.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Figures in the order in which they were added.
#[derive(Debug)]
pub(crate) struct Report {
    command: &'static str,
    figures: Vec<(&'static str, Figure)>,
    failed: bool,
}

#[derive(Debug)]
enum Figure {
    Plain(Value),
    /// Percentiles.
    Times(Vec<(&'static str, u64)>),
}

impl Report {
    pub(crate) fn new(command: &'static str) -> Self {
        Self {
            command,
            figures: Vec::new(),
            failed: false,
        }
    }

    /// A count.
    pub(crate) fn count(&mut self, name: &'static str, count: u64) {
        self.figures.push((name, Figure::Plain(count.into())));
    }

    /// A measured number; one that is not known is left out.
    pub(crate) fn number(&mut self, name: &'static str, number: impl Into<Option<f64>>) {
        let number = number.into().filter(|number| number.is_finite());
        if let Some(number) = number {
            self.figures.push((name, Figure::Plain(rounded(number))));
        }
    }

    /// Several numbers in a row.
    pub(crate) fn numbers(&mut self, name: &'static str, numbers: &[u64]) {
        self.figures.push((name, Figure::Plain(numbers.into())));
    }

    /// What a histogram of microseconds says.
    pub(crate) fn times(&mut self, name: &'static str, times: &Histogram<u64>) {
        let times = vec![
            ("p50", times.value_at_quantile(0.5)),
            ("p99", times.value_at_quantile(0.99)),
            ("p999", times.value_at_quantile(0.999)),
            ("max", times.max()),
        ];
        self.figures.push((name, Figure::Times(times)));
    }

    /// Something was lost, or came to the wrong one.
    pub(crate) fn fail_if(&mut self, failed: bool) {
        self.failed |= failed;
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn print(&self, json: bool) {
        let text = if json {
            let json = serde_json::to_string(self);
            json.unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            self.text()
        };
        // Whoever has closed the output does not want it.
        let _ = writeln!(io::stdout(), "{text}");
    }

    fn text(&self) -> String {
        let width = self
            .figures
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let mut text = self.command.to_owned();
        for (name, figure) in &self.figures {
            let value = match figure {
                Figure::Plain(Value::Array(values)) => values
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
                Figure::Plain(value) => value.to_string(),
                Figure::Times(times) => {
                    let times = times.iter().map(|(name, time)| format!("{name} {time}"));
                    times.collect::<Vec<_>>().join("  ")
                }
            };
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {name:width$}  {value}");
        }
        text
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("command", self.command)?;
        for (name, figure) in &self.figures {
            match figure {
                Figure::Plain(value) => map.serialize_entry(name, value)?,
                Figure::Times(times) => {
                    let times: serde_json::Map<String, Value> = times
                        .iter()
                        .map(|(name, time)| ((*name).to_owned(), (*time).into()))
                        .collect();
                    map.serialize_entry(name, &times)?;
                }
            }
        }
        map.end()
    }
}

/// To as many digits as the measurement is good for.
fn rounded(number: f64) -> Value {
    let unit = match number.abs() {
        100.0.. => {
            // Rounded, and far from the bounds of an i64.
            #[allow(clippy::cast_possible_truncation)]
            let whole = number.round() as i64;
            return whole.into();
        }
        1.0.. => 100.0,
        _ => 10_000.0,
    };
    ((number * unit).round() / unit).into()
}

/// For times in microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, LONGEST_US, SIGNIFICANT_DIGITS);
    // Fails for other bounds than these.
    histogram.unwrap_or_else(|error| unreachable!("{error}"))
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time by the number of those that it was spent on, in microseconds.
pub(crate) fn micros_each(time: Duration, number: u64) -> f64 {
    time.as_secs_f64() * 1e6 / number as f64
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("fanout");
        let mut times = histogram();
        (1..=1_000).for_each(|time| times.saturating_record(time));
        report.count("lost", 0);
        report.number("server_cores_used", 0.123_456);
        report.number("unknown", None);
        report.number("divided_by_zero", 1.0 / 0.0);
        report.times("latency_us", &times);
        report.numbers("memory_bytes", &[1, 2]);
        report
    }

    #[test]
    fn json_keeps_the_order_and_leaves_out_what_is_not_known() {
        assert_eq!(
            serde_json::to_string(&report()).unwrap(),
            r#"{"command":"fanout","lost":0,"server_cores_used":0.1235,"latency_us":"#.to_owned()
                + r#"{"max":1000,"p50":500,"p99":990,"p999":999},"memory_bytes":[1,2]}"#
        );
    }

    #[test]
    fn text_is_aligned() {
        assert_eq!(
            report().text(),
            "fanout\n  lost               0\n  server_cores_used  0.1235\n  \
             latency_us         p50 500  p99 990  p999 999  max 1000\n  memory_bytes       1 2"
        );
    }

    #[test]
    fn times_beyond_the_bounds_are_kept_within() {
        let mut times = histogram();
        times.saturating_record(0);
        times.saturating_record(u64::MAX);
        assert_eq!(times.len(), 2);
    }
}
