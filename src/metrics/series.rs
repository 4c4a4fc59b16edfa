//! The kinds of series.
//!
//! Counting is one relaxed atomic addition on a cache line that holds no other count: the router counts on one
//! core and the connections count on others. The recorder's own counters make two additions behind a pointer.
//! So the counts are kept here, and the recorder gets them when the exposition is written.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use metrics::{Gauge, Histogram, Label, SharedString};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::Labels;
use crate::output;

/// The declaration of a series, without its kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declaration {
    /// The name in the exposition.
    pub(super) name: &'static str,
    /// The names of its labels.
    pub(super) labels: &'static [&'static str],
    /// The help text, made of the lines of a comment: it begins with a space.
    pub(super) help: &'static str,
}

impl Declaration {
    fn help(self) -> SharedString {
        self.help.trim_start().into()
    }

    fn labels(self, texts: &[&'static str]) -> Vec<Label> {
        let labels = self.labels.iter().zip(texts);
        labels
            .map(|(name, text)| Label::from_static_parts(name, text))
            .collect()
    }
}

/// A kind of series, as the type of a declared field.
pub(super) trait Series {
    /// Registers the series with the current recorder, at zero.
    fn declare(declaration: Declaration) -> Self;

    /// Copies the value to the recorder. Does nothing where the recorder holds it already.
    fn expose(&self) {}
}

/// A count that only grows, on a cache line of its own.
#[repr(align(64))]
pub struct Counter {
    value: AtomicU64,
    exposed: metrics::Counter,
}

impl Counter {
    fn with_labels(declaration: Declaration, texts: &[&'static str]) -> Self {
        describe_counter!(declaration.name, declaration.help());
        Self {
            value: AtomicU64::new(0),
            exposed: counter!(declaration.name, declaration.labels(texts)),
        }
    }

    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts so many more.
    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Relaxed);
    }

    fn get(&self) -> u64 {
        self.value.load(Relaxed)
    }
}

impl Series for Counter {
    fn declare(declaration: Declaration) -> Self {
        Self::with_labels(declaration, &[])
    }

    fn expose(&self) {
        self.exposed.absolute(self.get());
    }
}

/// One counter for each value of the labels.
pub struct CounterBy<L> {
    /// Each at the index that `Enum` gives to its labels.
    counters: Box<[Counter]>,
    labels: PhantomData<L>,
}

impl<L: Labels> CounterBy<L> {
    /// Counts one more with these labels.
    pub fn increment(&self, labels: L) {
        self.counters[labels.into_usize()].increment();
    }

    /// The sum over all labels.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counters.iter().map(Counter::get).sum()
    }
}

impl<L: Labels> Series for CounterBy<L> {
    fn declare(declaration: Declaration) -> Self {
        let counter = |index| Counter::with_labels(declaration, &L::from_usize(index).texts());
        Self {
            counters: (0..L::LENGTH).map(counter).collect(),
            labels: PhantomData,
        }
    }

    fn expose(&self) {
        self.counters.iter().for_each(Series::expose);
    }
}

/// One counter for each number of a list of names, which may grow. The label is the name.
pub struct CounterByNumber<const LENGTH: usize> {
    declaration: Declaration,
    counters: Box<[Counted]>,
}

/// A count on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Counted(AtomicU64);

impl<const LENGTH: usize> CounterByNumber<LENGTH> {
    /// Counts one more of this number, which is less than `LENGTH`.
    #[inline]
    pub fn increment(&self, number: usize) {
        if let Some(Counted(count)) = self.counters.get(number) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The sum over all numbers.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = self
            .counters
            .iter()
            .map(|Counted(count)| count.load(Relaxed));
        counts.sum()
    }

    /// Copies the counts of these numbers to the current recorder, each under its name.
    pub(super) fn expose_as<'a>(&self, names: impl IntoIterator<Item = (usize, &'a str)>) {
        let Declaration { name, labels, .. } = self.declaration;
        for (number, text) in names {
            let labels: Vec<_> = labels
                .iter()
                .map(|label| Label::new(*label, text.to_owned()))
                .collect();
            if let Some(Counted(count)) = self.counters.get(number) {
                counter!(name, labels).absolute(count.load(Relaxed));
            }
        }
    }
}

impl<const LENGTH: usize> Series for CounterByNumber<LENGTH> {
    fn declare(declaration: Declaration) -> Self {
        describe_counter!(declaration.name, declaration.help());
        Self {
            declaration,
            counters: (0..LENGTH).map(|_| Counted::default()).collect(),
        }
    }
}

/// A gauge that is counted up and down.
pub struct Level {
    value: AtomicI64,
    exposed: Gauge,
}

impl Level {
    /// Adds one.
    pub fn increment(&self) {
        self.value.fetch_add(1, Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.value.fetch_sub(1, Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.value.load(Relaxed)
    }
}

impl Series for Level {
    fn declare(declaration: Declaration) -> Self {
        Self {
            value: AtomicI64::new(0),
            exposed: Gauge::declare(declaration),
        }
    }

    fn expose(&self) {
        self.exposed.set(self.get() as f64);
    }
}

/// A gauge that is 1 while a condition holds, else 0.
pub struct Flag(Gauge);

impl Flag {
    /// Says whether the condition holds.
    pub fn set(&self, holds: bool) {
        self.0.set(u8::from(holds));
    }
}

impl Series for Flag {
    fn declare(declaration: Declaration) -> Self {
        Self(Gauge::declare(declaration))
    }
}

/// One flag for each value of the labels.
pub struct FlagBy<L> {
    /// Each at the index that `Enum` gives to its labels.
    gauges: Box<[Gauge]>,
    labels: PhantomData<L>,
}

impl<L: Labels> FlagBy<L> {
    /// Says of every value of the labels whether its condition holds.
    pub fn set_all(&self, holds: impl Fn(L) -> bool) {
        for (index, gauge) in self.gauges.iter().enumerate() {
            gauge.set(u8::from(holds(L::from_usize(index))));
        }
    }
}

impl<L: Labels> Series for FlagBy<L> {
    fn declare(declaration: Declaration) -> Self {
        describe_gauge!(declaration.name, declaration.help());
        let gauge = |index| {
            let labels = declaration.labels(&L::from_usize(index).texts());
            let gauge = gauge!(declaration.name, labels);
            gauge.set(0);
            gauge
        };
        Self {
            gauges: (0..L::LENGTH).map(gauge).collect(),
            labels: PhantomData,
        }
    }
}

/// A gauge with the seconds since something last happened, or since the start if it never has.
pub struct Age {
    start: Instant,
    /// When it last happened, in milliseconds since the start.
    last_ms: AtomicU64,
    exposed: Gauge,
}

impl Age {
    /// It has happened now.
    pub fn restart(&self, now: Instant) {
        self.last_ms.store(self.ms(now), Relaxed);
    }

    /// How long ago it has last happened.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        Duration::from_millis(self.ms(now).saturating_sub(self.last_ms.load(Relaxed)))
    }

    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

impl Series for Age {
    fn declare(declaration: Declaration) -> Self {
        Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            exposed: Gauge::declare(declaration),
        }
    }

    fn expose(&self) {
        self.exposed.set(self.elapsed(Instant::now()).as_secs_f64());
    }
}

/// A gauge with the largest value of two windows, the current one and the one before it. So each of several
/// scrapers sees a peak.
pub struct WindowMaximum {
    current: AtomicU64,
    previous: AtomicU64,
    exposed: Gauge,
}

impl WindowMaximum {
    /// Raises the maximum of the current window to this value.
    pub fn observe(&self, value: u64) {
        // A read leaves the cache line shared between cores, and a new maximum is rare.
        if value > self.current.load(Relaxed) {
            self.current.fetch_max(value, Relaxed);
        }
    }

    /// Begins the next window.
    pub(super) fn advance(&self) {
        self.previous.store(self.current.swap(0, Relaxed), Relaxed);
    }
}

impl Series for WindowMaximum {
    fn declare(declaration: Declaration) -> Self {
        Self {
            current: AtomicU64::new(0),
            previous: AtomicU64::new(0),
            exposed: Gauge::declare(declaration),
        }
    }

    fn expose(&self) {
        let maximum = self.current.load(Relaxed).max(self.previous.load(Relaxed));
        self.exposed.set(maximum as f64);
    }
}

/// A gauge that is always 1, with the version of this program as its label.
pub struct BuildInfo;

impl Series for BuildInfo {
    fn declare(declaration: Declaration) -> Self {
        describe_gauge!(declaration.name, declaration.help());
        let labels = declaration.labels(&[env!("CARGO_PKG_VERSION")]);
        gauge!(declaration.name, labels).set(1);
        Self
    }
}

/// The lines that the log has dropped. They are counted where they are dropped, before there is any series.
pub struct LogLinesDropped(metrics::Counter);

impl Series for LogLinesDropped {
    fn declare(declaration: Declaration) -> Self {
        describe_counter!(declaration.name, declaration.help());
        Self(counter!(declaration.name))
    }

    fn expose(&self) {
        self.0.absolute(output::log_lines_dropped());
    }
}

impl Series for Gauge {
    fn declare(declaration: Declaration) -> Self {
        describe_gauge!(declaration.name, declaration.help());
        let gauge = gauge!(declaration.name);
        gauge.set(0);
        gauge
    }
}

impl Series for Histogram {
    fn declare(declaration: Declaration) -> Self {
        describe_histogram!(declaration.name, declaration.help());
        histogram!(declaration.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_counts_from_the_start_until_it_is_restarted() {
        let age = Age::declare(Declaration {
            name: "age_seconds",
            labels: &[],
            help: " An age.",
        });
        let after = |seconds: u64| age.start + Duration::from_millis(seconds * 1_000);
        assert_eq!(age.elapsed(after(3)).as_secs(), 3);
        age.restart(after(4));
        assert_eq!(age.elapsed(after(4)).as_secs(), 0);
        assert_eq!(age.elapsed(after(6)).as_secs(), 2);
        assert_eq!(age.elapsed(after(1)).as_secs(), 0);
    }
}
