//! One session: from the slot to the listener, until something fails or nobody wants it.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

use super::awaiting_visible::AwaitingVisible;
use super::bounds::{AWAITING_BYTES_MAX, BATCH_BYTES};
use super::inlet::{Batch, Outlet};
use crate::metrics::Metrics;
use crate::protocol::StreamFault;
use crate::store::{RowStream, StreamError, Streamed, Witness};

/// How often the position of the events that have been routed is reported to PostgreSQL, and the slot is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A transaction whose rows take longer to come is read from the log, and so is what was committed behind it.
const TRANSACTION_MAX: Duration = Duration::from_secs(1);
/// How often it is asked at once for the rest of a batch. Mostly it is visible a moment later.
const ASKED_AT_ONCE: u32 = 3;
/// Then the pause before it is asked again, twice as long each time that nothing was visible.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(1);
const ASK_PAUSE_MAX: Duration = Duration::from_millis(32);

/// A transaction whose rows are coming.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    /// Where its commit is in the write-ahead log.
    commit: u64,
    begun: Instant,
}

/// Reads one stream.
pub(super) struct Reader<'a> {
    stream: RowStream,
    witness: &'a mut Witness,
    outlet: Outlet,
    metrics: &'a Metrics,
    lag_bytes_max: i64,
    awaiting: AwaitingVisible,
    transaction: Option<Transaction>,
    /// Everything up to this position of the write-ahead log has come.
    received: u64,
    /// The position of the last batch.
    handed_on: u64,
    /// How often it was asked at once for the rest of a batch.
    asked: u32,
    /// How often in a row nothing was visible.
    asked_in_vain: u32,
    /// The earliest time to ask again.
    ask_at: Instant,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        stream: RowStream,
        witness: &'a mut Witness,
        outlet: Outlet,
        metrics: &'a Metrics,
        lag_bytes_max: u32,
    ) -> Self {
        Self {
            stream,
            witness,
            outlet,
            metrics,
            lag_bytes_max: lag_bytes_max.into(),
            awaiting: AwaitingVisible::default(),
            transaction: None,
            received: 0,
            handed_on: 0,
            asked: 0,
            asked_in_vain: 0,
            ask_at: Instant::now(),
        }
    }

    /// Returns when the listener lets go.
    ///
    /// # Errors
    /// Why the stream has ended.
    pub(super) async fn run(&mut self) -> Result<(), StreamError> {
        match self.read().await {
            Err(error) => Err(self.explain(error).await),
            ended => ended,
        }
    }

    /// PostgreSQL ends a walsender with few words or none. What is known besides says why.
    async fn explain(&mut self, error: StreamError) -> StreamError {
        if !matches!(
            error.fault,
            StreamFault::Unreachable | StreamFault::Invalidated
        ) {
            return error;
        }
        // Else PostgreSQL is gone, or the witness was lost.
        let Ok(kept_too_much) = self.witness.kept_too_much().await else {
            return error;
        };
        let error = self.stream.last_words().await.unwrap_or(error);
        if let Some(detail) = kept_too_much {
            return StreamError::new(StreamFault::Invalidated, detail);
        }
        if let Some(within) = self.stream.unanswered() {
            let detail = format!(
                "PostgreSQL has ended the walsender: no answer of this server has reached it within wal_sender_timeout, {} ms",
                within.as_millis()
            );
            return StreamError::new(StreamFault::WalSenderTimeout, detail);
        }
        error
    }

    async fn read(&mut self) -> Result<(), StreamError> {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.outlet.batches.closed() => return Ok(()),
                _ = looks.tick() => self.look().await?,
                streamed = self.stream.next() => self.take(streamed?).await?,
                () = sleep_until(self.ask_at.into()), if !self.awaiting.is_empty() => {}
            }
            while self.awaiting.bytes() < BATCH_BYTES
                && let Some(streamed) = self.stream.next_received()?
            {
                self.take(streamed).await?;
            }
            self.check_transaction()?;
            if !self.awaiting.is_empty() && Instant::now() >= self.ask_at {
                self.hand_on(&mut looks).await?;
            }
        }
    }

    async fn take(&mut self, streamed: Streamed) -> Result<(), StreamError> {
        match streamed {
            Streamed::Begin(commit) => {
                let begun = Instant::now();
                self.transaction = Some(Transaction { commit, begun });
            }
            Streamed::Row(row) => {
                let commit = self.transaction.map_or(self.received, |own| own.commit);
                self.awaiting.push(commit, row);
            }
            Streamed::End(end) => {
                self.transaction = None;
                self.received = end;
            }
            Streamed::Idle { end, reply } => {
                if self.transaction.is_none() {
                    self.received = self.received.max(end);
                }
                if reply {
                    self.confirm().await?;
                }
            }
        }
        Ok(())
    }

    fn check_transaction(&self) -> Result<(), StreamError> {
        let is_long = |own: Transaction| own.begun.elapsed() >= TRANSACTION_MAX;
        if self.transaction.is_some_and(is_long) {
            let detail = "the rows of one transaction take longer than a second to come";
            return Err(StreamError::new(StreamFault::LongTransaction, detail));
        }
        Ok(())
    }

    /// Hands on what is visible now.
    async fn hand_on(&mut self, looks: &mut Interval) -> Result<(), StreamError> {
        let snapshot = self.witness.snapshot().await?;
        let rows = self.awaiting.take_visible(&snapshot);
        if self.awaiting.bytes() > AWAITING_BYTES_MAX {
            let detail = "too many events wait until they are visible";
            return Err(StreamError::new(StreamFault::Overflow, detail));
        }
        self.plan_next_ask(!rows.is_empty());
        if rows.is_empty() {
            return Ok(());
        }
        self.metrics.events_streamed.add(rows.len() as u64);
        let end = self.settled();
        self.handed_on = end;
        let batches = self.outlet.batches.clone();
        // While the listener is busy, the stream is not read, and PostgreSQL still hears of this server.
        loop {
            tokio::select! {
                permit = batches.reserve() => {
                    if let Ok(permit) = permit {
                        permit.send(Batch { rows, end });
                    }
                    return Ok(());
                }
                _ = looks.tick() => self.look().await?,
            }
        }
    }

    /// Some rows were visible, or none.
    fn plan_next_ask(&mut self, some: bool) {
        self.asked_in_vain = if some {
            0
        } else {
            self.asked_in_vain.saturating_add(1)
        };
        if self.awaiting.is_empty() {
            self.asked = 0;
            return;
        }
        self.asked += 1;
        if self.asked >= ASKED_AT_ONCE {
            self.asked = 0;
            let doublings = (self.asked_in_vain / ASKED_AT_ONCE)
                .saturating_sub(1)
                .min(10);
            let pause = ASK_PAUSE_MIN * 2_u32.saturating_pow(doublings);
            self.ask_at = Instant::now() + pause.min(ASK_PAUSE_MAX);
        }
    }

    /// Everything up to this position of the write-ahead log has been handed on.
    fn settled(&self) -> u64 {
        let transaction = self.transaction.map(|own| own.commit);
        self.awaiting
            .oldest()
            .or(transaction)
            .unwrap_or(self.received)
    }

    /// Tells PostgreSQL how far the events have been routed.
    async fn confirm(&mut self) -> Result<(), StreamError> {
        let routed = self.outlet.shared.routed();
        let position = if routed >= self.handed_on {
            self.settled()
        } else {
            routed
        };
        self.stream.confirm(position).await
    }

    async fn look(&mut self) -> Result<(), StreamError> {
        self.confirm().await?;
        let Some(lag) = self.witness.slot_lag().await? else {
            let detail = "PostgreSQL has the slot no more";
            return Err(StreamError::new(StreamFault::Invalidated, detail));
        };
        self.metrics.wal_lag_bytes.set(lag as f64);
        if lag > self.lag_bytes_max {
            let detail =
                format!("PostgreSQL keeps {lag} bytes of its write-ahead log for the slot");
            return Err(StreamError::new(StreamFault::Lag, detail));
        }
        Ok(())
    }
}
