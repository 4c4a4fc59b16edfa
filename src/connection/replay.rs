//! What a client has missed: at its start, when it came with a cursor, and when it fell behind.
//!
//! Memory is asked first and costs no query, then the log; either in pages, each written before the next
//! is read, so that a connection holds one page at most. The subscription is live all the while.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::client::Connection;
use crate::delivery::{Feed, Found};
use crate::metrics::{ReplayCause, ReplaySource};
use crate::protocol::{
    CloseCode, Closed, Cursor, Encoding, Event, EventKind, Notice, ResetReason, Snapshot,
};
use crate::store::{PAGE_EVENTS, Page};

/// How long a client waits for the feed; then it may try again later.
const FEED_TIMEOUT: Duration = Duration::from_secs(10);
/// One page of the log.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Ids of a replay that are remembered; of a longer one, the newest.
pub(crate) const REPLAYED_MAX: usize = 4_096;

/// A replay that the client has been sent, and is not told the end of: with the cursor from which it was
/// sent, it knows what may be sent again. It is told one that has passed all of the replay.
#[derive(Debug)]
pub(super) struct Replayed {
    /// What the client was told last.
    told: Arc<Cursor>,
    /// The snapshot of the read: an event that was routed when the position covered it is new.
    until: Snapshot,
    /// What has been carried from the log, and the subscription may bring again.
    ids: HashSet<i64>,
    feed: watch::Receiver<Feed>,
}

impl Replayed {
    fn is_passed_by(&self, cursor: &Cursor) -> bool {
        cursor.epoch == self.told.epoch && cursor.snapshot.covers(&self.until)
    }
}

/// Ready when the feed has passed the end of the replay.
pub(super) async fn passed(replayed: &mut Option<Box<Replayed>>) {
    let Some(replayed) = replayed else {
        return std::future::pending().await;
    };
    loop {
        let cursor = replayed.feed.borrow_and_update().cursor().cloned();
        if cursor.is_some_and(|cursor| replayed.is_passed_by(&cursor)) {
            return;
        }
        if replayed.feed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

impl Connection {
    /// Tells a v1 client where it is, and sends what it has missed.
    pub(super) async fn begin(&mut self, since: Option<String>) -> Result<(), Closed> {
        let mut feed = self.shared.feed.clone();
        let live = async {
            let live = feed.wait_for(Feed::is_live).await;
            live.map(|feed| feed.cursor().cloned())
        };
        let live = self
            .meanwhile(tokio::time::timeout(FEED_TIMEOUT, live))
            .await?;
        let Ok(Ok(present)) = live else {
            return Err(Closed::ByServer(CloseCode::TryAgainLater));
        };
        self.passed.clone_from(&present);
        let Some(since) = since else {
            self.hello(present.as_deref(), None);
            return Ok(());
        };

        let cursor = match (since.parse::<Cursor>(), &present) {
            (Err(_), _) => Err(ResetReason::Malformed),
            (Ok(_), None) => Err(ResetReason::NoLog),
            (Ok(cursor), Some(present)) if cursor.epoch != present.epoch => {
                Err(ResetReason::History)
            }
            (Ok(cursor), Some(_)) => Ok(Arc::new(cursor)),
        };
        let cursor = match cursor {
            Ok(cursor) => cursor,
            Err(reason) => {
                self.reset(reason, present.as_deref());
                return Ok(());
            }
        };
        let user_id = self.subscription.user_id();
        if let Some(found) = self.shared.recent.since(user_id, &cursor) {
            self.hello(Some(&cursor), Some(found.total));
            let until = cursor.snapshot.clone();
            self.begin_settling(Arc::clone(&cursor), until, HashSet::new());
            self.passed = Some(cursor);
            self.send_from_memory(ReplayCause::Resume, found).await?;
            // Everything that `present` sees had been routed when memory was asked.
            if let Some(present) = present {
                self.pass(present);
            }
            self.arrive();
            return Ok(());
        }
        self.send_from_log(ReplayCause::Resume, cursor).await?;
        // What was revoked between the look-up and the read is in neither.
        self.in_doubt = self.identity.is_some();
        Ok(())
    }

    /// Sends what the connection missed by falling behind.
    pub(super) async fn repair(&mut self) -> Result<(), Closed> {
        let (user_id, from) = (
            self.subscription.user_id(),
            self.sequence.max(self.begun_after),
        );
        if let Some(found) = self.shared.recent.after(user_id, from) {
            return self.send_from_memory(ReplayCause::Lag, found).await;
        }
        self.repair_from_log().await
    }

    async fn repair_from_log(&mut self) -> Result<(), Closed> {
        if let Some(passed) = self.passed.clone() {
            return self.send_from_log(ReplayCause::Lag, passed).await;
        }
        self.reset_live(ResetReason::NoLog, None);
        Ok(())
    }

    async fn send_from_memory(
        &mut self,
        cause: ReplayCause,
        mut found: Found,
    ) -> Result<(), Closed> {
        let user_id = self.subscription.user_id();
        self.shared
            .metrics
            .replayed(cause, ReplaySource::Memory, found.total);
        loop {
            for event in found.events {
                // What was revoked before the subscription, the device has been looked up after.
                if event.kind == EventKind::Revocation && event.sequence <= self.begun_after {
                    self.sequence = event.sequence;
                    continue;
                }
                if !self.socket.has_room() {
                    self.flush().await?;
                }
                self.take_event(event)?;
            }
            if !found.more {
                return Ok(());
            }
            match self.shared.recent.after(user_id, self.sequence) {
                Some(next) => found = next,
                // A slow client: it was forgotten meanwhile.
                None => return Box::pin(self.repair_from_log()).await,
            }
        }
    }

    /// Sends everything that is visible now and was not in the cursor's snapshot.
    async fn send_from_log(&mut self, cause: ReplayCause, from: Arc<Cursor>) -> Result<(), Closed> {
        let told = match cause {
            ReplayCause::Resume => Arc::clone(&from),
            ReplayCause::Lag => self.told().unwrap_or_else(|| Arc::clone(&from)),
        };
        let mut replayed = HashSet::new();
        let mut last_id = 0;
        let mut first: Option<Cursor> = None;
        let mut taken: Option<Snapshot> = None;
        loop {
            let page = self
                .read_page(&from.snapshot, last_id, taken.as_ref(), cause)
                .await?;
            let reading = page.reading;
            let until = taken.get_or_insert_with(|| reading.cursor.snapshot.clone());
            let present = reading.cursor.heard();
            let reason = if present.epoch != from.epoch {
                Some(ResetReason::History)
            } else if !reading.known {
                Some(ResetReason::Future)
            } else if !reading.retained {
                Some(ResetReason::Retention)
            } else {
                None
            };
            if let Some(reason) = reason {
                match (first, cause) {
                    (None, ReplayCause::Resume) => self.reset(reason, Some(&present)),
                    _ => self.reset_live(reason, Some(&present)),
                }
                return Ok(());
            }
            if first.is_none() {
                self.shared
                    .metrics
                    .replayed(cause, ReplaySource::Log, page.total);
                if cause == ReplayCause::Resume {
                    self.hello(Some(&from), Some(page.total));
                }
            }
            let present = first.get_or_insert(present);
            if replayed.len() + PAGE_EVENTS > REPLAYED_MAX {
                replayed.clear();
            }
            for mut event in page.events {
                replayed.extend(event.id);
                event.passed = Some(Arc::clone(&told));
                if !self.socket.has_room() {
                    self.flush().await?;
                }
                self.queue_event(Arc::new(event))?;
            }
            match page.last_id {
                Some(id) if page.more => last_id = id,
                // What the first page's snapshot sees has been sent: all of it, not only what its
                // cursor's shortened form admits to.
                _ => {
                    self.passed = Some(Arc::new(present.clone()));
                    let until = until.clone();
                    self.begin_settling(told, until, replayed);
                    return Ok(());
                }
            }
        }
    }

    /// From here on the client keeps the cursor that it was told, until one has passed the replay.
    fn begin_settling(&mut self, told: Arc<Cursor>, until: Snapshot, ids: HashSet<i64>) {
        self.replayed = Some(Box::new(Replayed {
            told,
            until,
            ids,
            feed: self.shared.feed.clone(),
        }));
    }

    async fn read_page(
        &mut self,
        from: &Snapshot,
        last_id: i64,
        until: Option<&Snapshot>,
        cause: ReplayCause,
    ) -> Result<Page, Closed> {
        let (log, user_id) = (self.shared.log.clone(), self.subscription.user_id());
        let with_revocations = cause == ReplayCause::Lag;
        // A newer token may have come while the page before was being written.
        self.settle_identity().await?;
        let shared = Arc::clone(&self.shared);
        self.meanwhile(shared.limits.replay_page()).await?;
        let page = log.read_user(user_id, from, last_id, until, with_revocations);
        match self
            .meanwhile(tokio::time::timeout(PAGE_TIMEOUT, page))
            .await?
        {
            Ok(Ok(page)) => Ok(page),
            // The client keeps its cursor, and nothing is lost.
            Ok(Err(error)) => {
                tracing::warn!(event = "replay_failed", %error);
                Err(Closed::ByServer(CloseCode::TryAgainLater))
            }
            Err(_) => Err(Closed::ByServer(CloseCode::TryAgainLater)),
        }
    }

    /// Whether a replay from the log has carried this event, which now comes from elsewhere.
    pub(super) fn was_replayed(&mut self, event: &Event) -> bool {
        let Some(replayed) = &self.replayed else {
            return false;
        };
        if event.id.is_some_and(|id| replayed.ids.contains(&id)) {
            return true;
        }
        let passed = event.passed.as_ref();
        if event.is_reset() || passed.is_some_and(|cursor| replayed.is_passed_by(cursor)) {
            self.replayed = None;
        }
        false
    }

    /// Everything up to this cursor has been sent. It changes nothing when more has been passed.
    pub(super) fn pass(&mut self, cursor: Arc<Cursor>) {
        let is_newer = match (&self.replayed, &self.passed) {
            (Some(replayed), _) => replayed.is_passed_by(&cursor),
            (None, Some(passed)) => cursor.snapshot.covers(&passed.snapshot),
            (None, None) => true,
        };
        if is_newer {
            self.replayed = None;
            self.passed = Some(cursor);
        }
    }

    /// The feed has passed the end of the replay: the client may be told.
    pub(super) fn settle(&mut self) {
        self.take_cursor();
        self.arrive();
    }

    /// The cursor that the client is to come back with.
    pub(super) fn told(&self) -> Option<Arc<Cursor>> {
        match &self.replayed {
            Some(replayed) => Some(Arc::clone(&replayed.told)),
            None => self.passed.clone(),
        }
    }

    /// Tells the client that the replay is behind it.
    fn arrive(&mut self) {
        if self.encoding != Encoding::V1 || self.replayed.is_some() {
            return;
        }
        let cursor = self.told().map(|cursor| cursor.to_string());
        self.notify(&Notice::Cursor {
            cursor: cursor.as_deref(),
        });
    }

    fn hello(&mut self, cursor: Option<&Cursor>, replayed: Option<u64>) {
        let connection_id = Uuid::new_v4();
        let cursor = cursor.map(ToString::to_string);
        let heartbeat_ms = u32::try_from(self.shared.ping_interval.as_millis()).unwrap_or(u32::MAX);
        tracing::debug!(event = "connected", %connection_id, resumed = replayed.is_some());
        self.notify(&Notice::Hello {
            connection_id,
            cursor: cursor.as_deref(),
            heartbeat_ms,
            resumed: replayed.is_some(),
            replayed: replayed.unwrap_or(0),
        });
        self.greeted = true;
        self.tell_to_go();
    }

    /// Greets a client whose cursor is no good.
    fn reset(&mut self, reason: ResetReason, present: Option<&Cursor>) {
        self.hello(present, None);
        self.reset_live(reason, present);
    }

    /// The client has missed what cannot be told: it has to fetch its state anew.
    fn reset_live(&mut self, reason: ResetReason, present: Option<&Cursor>) {
        self.passed = present.cloned().map(Arc::new);
        self.replayed = None;
        self.in_doubt = self.identity.is_some();
        if self.encoding != Encoding::V1 {
            return;
        }
        self.shared.metrics.reset(reason);
        let cursor = present.map(ToString::to_string);
        self.notify(&Notice::Reset {
            reason,
            cursor: cursor.as_deref(),
        });
    }
}
