//! The recorder that writes the exposition, with the series of the process itself.

use std::sync::Arc;

use metrics::with_local_recorder;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

/// The buckets of every latency, in seconds.
const LATENCY_BUCKETS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The buckets of the age of replayed events, in seconds: from a connection that was lost and came back to the
/// default `retention_hours`.
const REPLAY_AGE_BUCKETS: [f64; 12] = [
    0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0, 604_800.0,
];

/// Each [`Metrics`](super::Metrics) has a recorder of its own, so that tests in one process do not mix.
///
/// Series without the prefix `hushnet_` are the process's own under their usual Prometheus names
/// (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`, …).
#[derive(Clone)]
pub(super) struct Recorder {
    prometheus: Arc<PrometheusRecorder>,
    process: metrics_process::Collector,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let prometheus = [
            (Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS[..]),
            (
                Matcher::Full("hushnet_replay_age_seconds".to_owned()),
                &REPLAY_AGE_BUCKETS,
            ),
        ]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (matcher, buckets)| {
            builder.set_buckets_for_metric(matcher, buckets)
        })
        .unwrap_or_else(|error| unreachable!("the buckets are not empty: {error}"))
        .build_recorder();
        let recorder = Self {
            prometheus: Arc::new(prometheus),
            process: metrics_process::Collector::default(),
        };
        recorder.scope(|| recorder.process.describe());
        recorder
    }

    /// Runs `declare` with this recorder as the one that series are registered with.
    pub(super) fn scope<T>(&self, declare: impl FnOnce() -> T) -> T {
        with_local_recorder(&*self.prometheus, declare)
    }

    /// The exposition, in Prometheus's text format 0.0.4.
    pub(super) fn render(&self) -> String {
        self.scope(|| self.process.collect());
        self.prometheus.handle().render()
    }

    /// Moves the histograms' samples into their buckets. Without this they pile up until the next scrape.
    pub(super) fn upkeep(&self) {
        self.prometheus.handle().run_upkeep();
    }
}
