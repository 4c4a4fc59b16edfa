//! What a client has missed: at its start, when it came with a cursor, and when it fell behind.
//!
//! The replay buffer is asked first and costs no query, then the log. Either is sent in pages, each written before
//! the next is read, so that a connection holds one page at most. The subscription is live all the while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hushnet_websocket::Stream;

use super::client::Connection;
use super::large::{self, ATTEMPTS_MAX, RETRY};
use super::pending::Since;
use super::position::Source;
use crate::delivery::{Feed, Found};
use crate::metrics::{ReplayCause, ReplaySource};
use crate::protocol::{
    CloseCode, Closed, Cursor, Encoding, Epoch, Notice, ReadinessReason, Recipient, ResetReason,
    Signal, Snapshot,
};
use crate::store::{self, COUNTED_MAX, Page, Reading, UserPages};

/// How long a client waits for the feed; then it is closed and may try again later.
const FEED_TIMEOUT: Duration = Duration::from_secs(10);

/// The cursor from which on events are coming; `None` in a database without a log.
type Present = Option<Arc<Cursor>>;

/// A connection while it is sent what it has missed.
pub(super) struct Replay<'a, S> {
    connection: &'a mut Connection<S>,
    /// Whether the client had been away. What it is sent now is no live delivery, and does not count as one.
    was_away: bool,
}

impl<'a, S: Stream> Replay<'a, S> {
    pub(super) fn of(connection: &'a mut Connection<S>) -> Self {
        Self {
            connection,
            was_away: false,
        }
    }

    /// Whose events the connection is sent, and which of them.
    fn recipient(&self) -> Recipient {
        Recipient {
            user: self.connection.subscription.user(),
            kinds: self.connection.choice.0.clone(),
        }
    }

    /// Sends a v1 client its first frame, and what it has missed since its cursor.
    pub(super) async fn begin(mut self, since: Option<Since>) -> Result<(), Closed> {
        self.was_away = since.is_some();
        let mut present = self.wait_for_feed().await?;
        if let (Some(Ok(cursor)), Some(here)) = (&since, &present)
            && cursor.epoch.is_of_a_later_timeline_than(here.epoch)
        {
            present = self.wait_for_promotion(cursor.epoch).await?;
        }
        self.connection.position.begin_at(present.clone());
        let Some(since) = since else {
            self.hello(present.as_deref(), None);
            return Ok(());
        };
        let cursor = match (since, &present) {
            (Err(_), _) => Err(ResetReason::Malformed),
            (Ok(_), None) => Err(ResetReason::NoLog),
            (Ok(cursor), Some(present)) if cursor.epoch != present.epoch => {
                Err(ResetReason::History)
            }
            (Ok(cursor), Some(_)) => Ok(cursor),
        };
        let cursor = match cursor {
            Ok(cursor) => cursor,
            Err(reason) => {
                self.hello(present.as_deref(), None);
                self.reset(reason, present);
                return Ok(());
            }
        };
        let recipient = self.recipient();
        let replay_buffer = &self.connection.shared.replay_buffer;
        if let Some(found) = replay_buffer.since(recipient, &cursor.snapshot) {
            return self.resume_from_buffer(cursor, found).await;
        }
        self.send_from_log(ReplayCause::Resume, cursor).await?;
        // What was revoked between the look-up of the identity and the read is in neither.
        self.connection.holder.doubt();
        Ok(())
    }

    /// The cursor of the feed, as soon as it is live.
    async fn wait_for_feed(&mut self) -> Result<Present, Closed> {
        let live = self.feed_that(|_| true).await?;
        live.ok_or(Closed::ByServer(CloseCode::TryAgainLater))
    }

    /// The client was on a server that has gone to a promoted standby already, and this one is about to. Were it reset
    /// here, it would be reset again then. The cursor alone proves no promotion: who has waited for none is reset, unless
    /// the bus brings events of a later timeline.
    async fn wait_for_promotion(&mut self, to: Epoch) -> Result<Present, Closed> {
        let promoted = |here: &Arc<Cursor>| !to.is_of_a_later_timeline_than(here.epoch);
        if let Some(present) = self.feed_that(|here| here.is_none_or(promoted)).await? {
            return Ok(present);
        }
        let is_behind = {
            let feed = self.connection.shared.feed.borrow();
            feed.has(ReadinessReason::NewerTimeline, Instant::now())
        };
        if is_behind {
            return Err(Closed::ByServer(CloseCode::TryAgainLater));
        }
        // The feed has gone on meanwhile, or has gone away.
        self.wait_for_feed().await
    }

    /// The cursor of the feed, as soon as it is live and suits; `None`, if it does not come to that.
    async fn feed_that(
        &mut self,
        suits: impl Fn(Option<&Arc<Cursor>>) -> bool,
    ) -> Result<Option<Present>, Closed> {
        let mut feed = self.connection.shared.feed.clone();
        let user = self.connection.subscription.user();
        let live = async move {
            let live = feed.wait_for(|feed: &Feed| feed.serves(user) && suits(feed.cursor()));
            live.await
                .map(|feed| (feed.cursor().cloned(), feed.new_history()))
        };
        let live = tokio::time::timeout(FEED_TIMEOUT, live);
        let Ok(Ok((present, new_history))) = self.connection.meanwhile(live).await? else {
            return Ok(None);
        };
        self.connection.position.begin_after(new_history);
        Ok(Some(present))
    }

    async fn resume_from_buffer(mut self, cursor: Arc<Cursor>, found: Found) -> Result<(), Closed> {
        self.hello(Some(&cursor), Some(found.total));
        let position = &mut self.connection.position;
        position.resume_from_buffer(Arc::clone(&cursor), Instant::now());
        let since = Some(&cursor.snapshot);
        self.send_from_buffer(ReplayCause::Resume, found, since)
            .await
    }

    /// Sends what the connection missed by falling behind.
    pub(super) async fn repair(mut self) -> Result<(), Closed> {
        let recipient = self.recipient();
        let after = self.connection.position.repair_after();
        match self.connection.shared.replay_buffer.after(recipient, after) {
            Some(found) => {
                if found.has_lost_log {
                    self.reset(ResetReason::NoLog, None);
                }
                self.send_from_buffer(ReplayCause::Lag, found, None).await
            }
            None => self.repair_from_log().await,
        }
    }

    async fn repair_from_log(&mut self) -> Result<(), Closed> {
        if let Some(cursor) = self.connection.position.repair_from().cloned() {
            // The cursor may be of after a revocation that the connection has not taken yet.
            self.connection.holder.doubt();
            return self.send_from_log(ReplayCause::Lag, cursor).await;
        }
        self.reset(ResetReason::NoLog, None);
        Ok(())
    }

    async fn send_from_buffer(
        &mut self,
        cause: ReplayCause,
        mut found: Found,
        since: Option<&Snapshot>,
    ) -> Result<(), Closed> {
        let shared = Arc::clone(&self.connection.shared);
        shared.metrics.replays(cause, ReplaySource::Memory);
        shared.metrics.events_replayed(found.total);
        loop {
            let has_lost_log = found.has_lost_log;
            for signal in found.signals {
                self.make_room().await?;
                self.connection.take_signal(signal, Source::Buffer)?;
                large::send(self.connection).await?;
            }
            self.sample();
            if !found.more {
                return Ok(());
            }
            let after = self.connection.position.taken();
            let recipient = self.recipient();
            match shared.replay_buffer.since_after(recipient, since, after) {
                Some(next) => {
                    if next.has_lost_log && !has_lost_log {
                        self.reset(ResetReason::NoLog, None);
                    }
                    found = next;
                }
                // A slow client: the buffer has forgotten the rest meanwhile.
                None => return Box::pin(self.repair_from_log()).await,
            }
        }
    }

    /// Sends everything that is visible now and was not in the cursor's snapshot.
    async fn send_from_log(&mut self, cause: ReplayCause, from: Arc<Cursor>) -> Result<(), Closed> {
        let shared = Arc::clone(&self.connection.shared);
        let recipient = self.recipient();
        let with_revocations = cause == ReplayCause::Lag;
        let mut pages = shared
            .log
            .read_user(recipient, &from.snapshot, with_revocations);
        let mut page = self.read_page(&mut pages).await?;
        let present = Arc::new(page.reading.cursor.for_clients());
        if let Some(reason) = refusal(&page.reading, &from) {
            if cause == ReplayCause::Resume {
                self.hello(Some(&present), None);
            }
            self.reset(reason, Some(present));
            return Ok(());
        }
        shared.metrics.replays(cause, ReplaySource::Log);
        let kept = match cause {
            ReplayCause::Resume => Arc::clone(&from),
            ReplayCause::Lag => {
                let kept = self.connection.position.client_cursor();
                Arc::clone(kept.unwrap_or(&from))
            }
        };
        if cause == ReplayCause::Resume {
            self.hello(Some(&from), Some(page.total));
        }
        let until = page.reading.cursor.snapshot.clone();
        loop {
            let more = page.more;
            self.send_page(page, &kept).await?;
            if !more {
                break;
            }
            page = self.read_page(&mut pages).await?;
            if let Some(reason) = refusal(&page.reading, &from) {
                let present = Arc::new(page.reading.cursor.for_clients());
                self.reset(reason, Some(present));
                return Ok(());
            }
        }
        // What the first page's snapshot sees has been queued: all of it, not only what the shortened form of its
        // cursor admits.
        self.connection
            .position
            .resume_from_log(kept, until, present);
        Ok(())
    }

    async fn send_page(&mut self, page: Page, kept: &Arc<Cursor>) -> Result<(), Closed> {
        for (id, why) in page.skipped {
            let shared = &self.connection.shared;
            shared.metrics.log_rows_skipped.increment(why);
            shared.health.events_skipped(id, why, Instant::now());
        }
        let events = page.signals.len() as u64;
        self.connection.shared.metrics.events_replayed(events);
        let with_cursor = self.connection.position.gives_cursors();
        for mut signal in page.signals {
            if let Signal::Event(event) = &mut signal {
                event.cursor = Some(Arc::clone(kept));
            }
            self.make_room().await?;
            self.connection
                .queue_signal(Arc::new(signal), with_cursor)?;
            large::send(self.connection).await?;
        }
        self.sample();
        Ok(())
    }

    async fn make_room(&mut self) -> Result<(), Closed> {
        if self.connection.socket.has_room() {
            Ok(())
        } else {
            self.sample();
            self.connection.flush().await
        }
    }

    /// Takes what has been queued for a client that had been away, before the connection counts it as delivered
    /// live. The first event stands for those that are written together.
    fn sample(&mut self) {
        if !self.was_away {
            return;
        }
        if let Some(replayed) = self.connection.outbox.take_delivered()
            && let Signal::Event(first) = &*replayed.first
        {
            let user = self.connection.subscription.user();
            self.connection.shared.latency.replayed(user, first);
        }
    }

    async fn read_page(&mut self, pages: &mut UserPages) -> Result<Page, Closed> {
        let shared = Arc::clone(&self.connection.shared);
        // A newer token may have come while the page before was being written.
        self.connection.check_identity().await?;
        let mut attempts = 0;
        loop {
            let may_read = shared.limits.replay_page(pages.is_at_begin());
            let permit = self.connection.meanwhile(may_read).await?;
            attempts += 1;
            let read = self.connection.meanwhile(pages.next()).await?;
            drop(permit);
            let error = match read {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            let again = attempts < ATTEMPTS_MAX && store::may_pass(&error);
            tracing::warn!(event = "replay_failed", %error, again);
            if !again {
                // The client keeps its cursor, and nothing is lost.
                return Err(Closed::ByServer(CloseCode::TryAgainLater));
            }
            self.connection.meanwhile(tokio::time::sleep(RETRY)).await?;
        }
    }

    fn hello(&mut self, cursor: Option<&Cursor>, replayed: Option<u64>) {
        let connection_id = self.connection.id;
        let cursor = cursor.map(ToString::to_string);
        let heartbeat = self.connection.shared.timeouts.ping_interval;
        let heartbeat_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
        tracing::debug!(event = "connected", %connection_id, resumed = replayed.is_some());
        self.connection.notify(&Notice::Hello {
            connection_id,
            cursor: cursor.as_deref(),
            heartbeat_ms,
            resumed: replayed.is_some(),
            replayed: replayed.unwrap_or(0).min(COUNTED_MAX as u64),
            expires_in_ms: self.connection.expires_in_ms(),
        });
        self.connection.outbox.greet();
        self.connection.announce_leaving();
    }

    /// The client has missed what cannot be sent: it has to fetch its state anew.
    fn reset(&mut self, reason: ResetReason, present: Option<Arc<Cursor>>) {
        let connection = &mut *self.connection;
        let cursor = present.as_ref().map(ToString::to_string);
        connection.position.begin_at(present);
        connection.holder.doubt();
        if connection.encoding == Encoding::V1 {
            connection.shared.metrics.resets.increment(reason);
            connection.notify(&Notice::Reset {
                reason,
                cursor: cursor.as_deref(),
            });
        }
    }
}

/// Why a read of the log cannot be joined to this cursor; `None` if it can.
pub(super) fn refusal(reading: &Reading, from: &Cursor) -> Option<ResetReason> {
    if reading.cursor.epoch != from.epoch {
        Some(ResetReason::History)
    } else if !reading.known {
        Some(ResetReason::Future)
    } else if !reading.retained {
        Some(ResetReason::Retention)
    } else {
        reading.gap
    }
}
