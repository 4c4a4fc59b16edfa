//! Makes streams, one after another, while the database says `wal`.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enum_map::EnumMap;
use hushnet_replication::Endpoint;
use tokio::sync::watch;
use tokio::time::sleep;

use super::inlet::{Session, Sessions};
use super::reader::Reader;
use crate::delivery::HealthReport;
use crate::metrics::Metrics;
use crate::protocol::{Label, ReadinessReason, StreamFault};
use crate::store::{Log, RowStream, StreamError, slot_blockers};

/// After a stream that has ended, before the next one is made.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A stream that lasted so long begins the pauses anew.
const LASTING: Duration = Duration::from_secs(30);
/// A fault that lasts is logged once in this time.
const LOGGED_EVERY: Duration = Duration::from_mins(1);

/// The task that streams the log's rows from the write-ahead log.
#[derive(Debug)]
pub struct StreamTask {
    log: Log,
    endpoint: Option<Endpoint>,
    lag_bytes_max: u32,
    wanted: watch::Receiver<bool>,
    sessions: Sessions,
    health: HealthReport,
    metrics: Arc<Metrics>,
    /// When each fault was last logged.
    logged: EnumMap<StreamFault, Option<Instant>>,
}

impl StreamTask {
    pub(in crate::ingest) fn new(
        log: Log,
        (wanted, sessions): (watch::Receiver<bool>, Sessions),
        health: HealthReport,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            log,
            endpoint: None,
            lag_bytes_max: u32::MAX,
            wanted,
            sessions,
            health,
            metrics,
            logged: EnumMap::default(),
        }
    }

    /// With a credential for replication.
    pub(in crate::ingest) fn with(self, endpoint: Option<Endpoint>) -> Self {
        Self { endpoint, ..self }
    }

    /// With the most of the write-ahead log that PostgreSQL may keep for the slot.
    #[must_use]
    pub fn with_lag_bytes_max(self, lag_bytes_max: u32) -> Self {
        Self {
            lag_bytes_max,
            ..self
        }
    }

    /// Streams for ever, while it is wanted. Ends when the listener has.
    pub async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            let mut until = self.wanted.clone();
            let unwanted = async { drop(until.wait_for(|wanted| !*wanted).await) };
            let begun = Instant::now();
            tokio::select! {
                () = unwanted => {}
                ended = self.stream() => {
                    if begun.elapsed() >= LASTING {
                        pause = PAUSE_MIN;
                    }
                    self.ended(ended, pause).await;
                }
            }
            self.metrics.wal_lag_bytes.set(0.0);
            if !*self.wanted.borrow() {
                self.health.end(ReadinessReason::NotStreaming);
                pause = PAUSE_MIN;
                continue;
            }
            let mut until = self.wanted.clone();
            tokio::select! {
                () = sleep(pause.mul_f64(rand::random_range(0.5..1.0))) => {}
                _ = until.wait_for(|wanted| !*wanted) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One stream, to its end.
    async fn stream(&self) -> Result<(), StreamError> {
        let Some(endpoint) = &self.endpoint else {
            let detail = "no --replication-url was given";
            return Err(StreamError::new(StreamFault::NoUrl, detail));
        };
        // Nobody looks at a slot that is made while the listener has not taken the session before.
        let Ok(room) = self.sessions.reserve().await else {
            return pending().await;
        };
        let (stream, mut witness, until) = RowStream::open(&self.log, endpoint).await?;
        let (session, outlet) = Session::new(until);
        let shared = Arc::clone(&outlet.shared);
        room.send(session);
        let bytes_max = self.lag_bytes_max;
        let mut reader = Reader::new(stream, &mut witness, outlet, &self.metrics, bytes_max);
        let ended = reader.run().await;
        drop(reader);
        witness.close().await;
        ended?;
        let detail = |fault: StreamFault| match fault {
            StreamFault::Silent => "barriers commit and are notified, and their rows do not come",
            _ => "more events than there is room for wait to be joined to what was read",
        };
        match shared.let_go() {
            Some(fault) => Err(StreamError::new(fault, detail(fault))),
            None => Ok(()),
        }
    }

    async fn ended(&mut self, ended: Result<(), StreamError>, pause: Duration) {
        // The listener has lost its own connection, and says so.
        let Err(error) = ended else { return };
        let fault = error.fault;
        self.metrics.stream_failures.increment(fault);
        let mut detail = error.detail;
        if fault == StreamFault::Blocked {
            for blocker in slot_blockers(&self.log).await.unwrap_or_default() {
                detail = format!("{detail}; {blocker} (end it with {})", blocker.remedy());
            }
        }
        let shown = format!("{}: {detail}", fault.as_str());
        self.health.begin(ReadinessReason::NotStreaming, &shown);
        let logged = &mut self.logged[fault];
        if logged.is_some_and(|at| at.elapsed() < LOGGED_EVERY) {
            return;
        }
        *logged = Some(Instant::now());
        let (cause, advice) = (fault.as_str(), fault.advice());
        let retry_ms = pause.as_millis();
        if fault.is_passing() {
            tracing::info!(event = "wal_not_streaming", cause, detail, retry_ms, advice);
        } else {
            tracing::warn!(event = "wal_not_streaming", cause, detail, retry_ms, advice);
        }
    }
}
