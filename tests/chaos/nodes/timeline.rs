//! When each fault began, and how long clients waited for what was committed during it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::clients::Habit;
use crate::scene::Outcomes;

/// The faults of a run, in their order.
#[derive(Debug)]
pub struct Timeline {
    begun: Instant,
    marks: Vec<(Instant, &'static str)>,
}

impl Timeline {
    pub fn begin() -> Self {
        let begun = Instant::now();
        Self {
            begun,
            marks: vec![(begun, "the beginning")],
        }
    }

    /// This begins now.
    pub fn mark(&mut self, what: &'static str) {
        let now = Instant::now();
        eprintln!("  at {:6.1} s: {what}", (now - self.begun).as_secs_f64());
        self.marks.push((now, what));
    }

    /// For each fault the longest time from a COMMIT during it to a faithful client.
    pub fn report(&self, outcomes: &Outcomes) -> String {
        let mut longest = vec![Duration::ZERO; self.marks.len()];
        let faithful = outcomes
            .clients
            .iter()
            .filter(|client| client.habit == Habit::Faithful);
        for arrival in faithful.flat_map(|client| &client.library.arrivals) {
            let Some(ended) = outcomes.records[arrival.message].ended_at else {
                continue;
            };
            let during = self.marks.partition_point(|(at, _)| *at <= ended);
            if let Some(longest) = during.checked_sub(1).map(|mark| &mut longest[mark]) {
                *longest = (*longest).max(arrival.at.saturating_duration_since(ended));
            }
        }
        let mut text = "  longest from a COMMIT to a faithful client:".to_owned();
        for ((at, what), longest) in self.marks.iter().zip(longest) {
            let at = (*at - self.begun).as_secs_f64();
            // Writing into a String cannot fail.
            let _ = write!(
                text,
                "\n  {at:6.1} s {what}: {:.2} s",
                longest.as_secs_f64()
            );
        }
        text
    }
}
