//! One WebSocket client's life, from the upgrade to the close.
//!
//! A single task owns the socket and the place in the hub. First the client is told where
//! it is and gets what it has missed (`replay`), then it gets what comes. The socket is read always,
//! also while a write is blocked; the one exception is a client that asks without reading the answers:
//! an answer that waits for a blocked socket stops the reading, so that nothing a client sends piles up
//! here. Events that are ready together are written together and flushed once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use crate::connection::{Clock, Drain, Moment};
use crate::delivery::{Feed, Hub, LatencySampler, Recent, Subscription};
use crate::identity::{Authenticator, Identity};
use crate::limits::{Allowance, Limits};
use crate::metrics::Metrics;
use crate::protocol::{
    Answer, ClientFrame, CloseCode, Closed, Cursor, Encoding, Event, EventKind, Notice, Secret,
};
use crate::socket::{Goodbyes, Socket, SocketLimits, Step};
use crate::store::Log;

use super::turn::{Batch, Turn};
use super::{lifetime, replay};

/// What every connection of a server has in common.
#[derive(Debug)]
pub struct Shared {
    /// Silence after which the client is pinged, and a v1 client is sent its cursor.
    pub ping_interval: Duration,
    /// Time to answer a ping.
    pub pong_timeout: Duration,
    /// Time that a write may be blocked.
    pub write_timeout: Duration,
    /// Frames that a client may send in a second, on the average.
    pub client_frames_per_second: u32,
    /// What a socket may hold.
    pub socket_limits: SocketLimits,
    /// Whose turn it is to be closed.
    pub goodbyes: Goodbyes,
    /// The time.
    pub clock: Arc<Clock>,
    /// Who is connected.
    pub hub: Hub,
    /// The newest events: what a client has missed, without a query.
    pub recent: Recent,
    /// All retained events.
    pub log: Log,
    /// How much clients may.
    pub limits: Arc<Limits>,
    /// Who checks a token that a client sends.
    pub auth: Arc<Authenticator>,
    /// Whether events are coming, and from where on.
    pub feed: watch::Receiver<Feed>,
    /// Where deliveries are counted.
    pub metrics: Arc<Metrics>,
    /// Where deliveries are sampled.
    pub latency: LatencySampler,
    /// Whether the server is ending, and when each of its clients is to go.
    pub drain: Drain,
}

/// A user's place in the stream, taken before the client is answered: what is committed after the
/// client sees the connection open reaches it.
#[derive(Debug)]
pub struct Seat {
    subscription: Subscription,
    /// The last event that was routed before.
    sequence: u64,
    /// How the client wants to be written to.
    encoding: Encoding,
    /// The cursor that the client came with, as it wrote it.
    since: Option<String>,
    /// Who it has proven to be; `None` where nobody has to.
    identity: Option<Identity>,
    /// Whether the feed was live when the place was taken.
    live: bool,
}

impl Seat {
    /// Takes a place for a connection of this user.
    #[must_use]
    pub fn take(
        shared: &Shared,
        user_id: uuid::Uuid,
        encoding: Encoding,
        since: Option<String>,
        identity: Option<Identity>,
    ) -> Self {
        // Read first: nothing that the subscription does not bring is skipped.
        let sequence = shared.recent.last_sequence();
        let live = shared.feed.borrow().is_live();
        Self {
            subscription: shared.hub.subscribe(user_id),
            sequence,
            encoding,
            since,
            identity,
            live,
        }
    }
}

/// A client that is connected.
#[derive(Debug)]
pub struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Socket,
    pub(super) subscription: Subscription,
    pub(super) encoding: Encoding,
    /// The last event that was routed before the subscription: where the repair of a lag begins until
    /// something has been sent. One that was being routed just then may still come.
    pub(super) begun_after: u64,
    /// The last event sent: one that a replay has carried is not sent again.
    pub(super) sequence: u64,
    /// Where a repair from the log begins: the newest cursor passed, or the snapshot of a replay.
    pub(super) passed: Option<Arc<Cursor>>,
    /// Whether a replay is under way: what is before `passed` need not have been sent yet.
    pub(super) behind: bool,
    /// A replay whose end no cursor has passed yet.
    pub(super) replayed: Option<Box<replay::Replayed>>,
    /// When the clock wakes it to look at its deadlines; `NEVER_YET` when they have to be looked at now.
    pub(super) look_at: Moment,
    /// When the client was last heard.
    pub(super) heard: Moment,
    /// When the ping was sent that has not been answered.
    pub(super) pinged: Option<Moment>,
    /// When the write began that has not been flushed.
    pub(super) writing_since: Option<Moment>,
    /// The answer that waits for the socket.
    pub(super) owed: Option<Answer>,
    /// The frames that the client may yet send.
    pub(super) allowance: Allowance,
    /// Who the client has proven to be, and until when that is good.
    pub(super) identity: Option<Box<Identity>>,
    pub(super) expires: Option<Moment>,
    /// Whether the identity has to be looked up again, since a revocation may have been missed.
    pub(super) in_doubt: bool,
    /// When it is looked up again in any case; only in a database without a log, where nothing tells of
    /// a revocation.
    pub(super) confirm_at: Option<Moment>,
    /// A newer proof that has not been checked.
    pub(super) offered: Option<Secret>,
    /// Whether a v1 client has had its first frame.
    pub(super) greeted: bool,
    /// When the client has to go, while the server drains.
    pub(super) leave_at: Option<Moment>,
    /// What is being written.
    pub(super) batch: Batch,
}

/// What has become of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is queued, unless it is known.
    Queued,
    /// Some were lost before it.
    Lagged,
}

impl Connection {
    /// A client that has been answered with 101.
    #[must_use]
    pub fn new(shared: Arc<Shared>, socket: Socket, seat: Seat) -> (Self, Option<String>) {
        let Seat {
            subscription,
            sequence,
            encoding,
            since,
            identity,
            live,
        } = seat;
        let heard = shared.clock.now();
        let expires = identity.and_then(|identity| lifetime::expiry(&shared.clock, &identity));
        let connection = Self {
            shared,
            socket,
            subscription,
            encoding,
            begun_after: sequence,
            sequence: 0,
            passed: None,
            behind: true,
            replayed: None,
            heard,
            look_at: Moment::NEVER_YET,
            pinged: None,
            writing_since: None,
            owed: None,
            allowance: Allowance::default(),
            identity: identity.map(Box::new),
            expires,
            // Before the feed is live, a revocation may go by unheard.
            in_doubt: identity.is_some() && !live,
            confirm_at: None,
            offered: None,
            greeted: false,
            leave_at: None,
            batch: Batch::default(),
        };
        (connection, since)
    }

    /// Serves the client until either side ends it, and says why.
    pub async fn run(&mut self, since: Option<String>) -> Closed {
        let Err(ending) = self.serve(since).await;
        ending
    }

    /// Where it is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Closes the socket as the ending demands.
    pub async fn close(self, ending: Closed) {
        // Nothing more is delivered: give the place in the hub up before the goodbye.
        drop(self.subscription);
        self.shared.goodbyes.say(self.socket, ending).await;
    }

    pub(super) async fn serve(&mut self, since: Option<String>) -> Result<Infallible, Closed> {
        if self.encoding == Encoding::V1 {
            // Boxed: its state is large, and gone before the long wait begins.
            Box::pin(self.begin(since)).await?;
        } else {
            self.passed = self.shared.feed.borrow().cursor().cloned();
        }
        self.behind = false;
        self.watch_identity();
        let shared = Arc::clone(&self.shared);
        loop {
            if self.leave_at.is_none() && shared.drain.has_begun() {
                self.prepare_to_leave();
            }
            if shared.clock.now() >= self.look_at {
                self.look_at_deadlines()?;
            }
            if self.has_to_settle_identity() {
                Box::pin(self.settle_identity()).await?;
                continue;
            }
            let turn = if self.writing_since.is_some() || self.replayed.is_some() {
                // Boxed: a connection is seldom here, and has no room for it while it is not.
                Box::pin(self.encumbered_turn()).await?
            } else {
                self.unencumbered_turn().await
            };
            match turn {
                Turn::Event(event) => {
                    if self.take_news(event)? == Taken::Lagged {
                        self.behind = true;
                        Box::pin(self.repair()).await?;
                        self.behind = false;
                    }
                }
                Turn::Step(step) => self.take_step(step)?,
                Turn::Blocked => self.writing_since = Some(shared.clock.exactly_now()),
                Turn::Done => {}
            }
        }
    }

    pub(super) fn take_step(&mut self, step: Step) -> Result<(), Closed> {
        match step {
            Step::Ended(closed) => return Err(closed),
            Step::Flushed => {
                self.writing_since = None;
                self.batch.delivered(&self.shared);
                if let Some(answer) = self.owed.take() {
                    self.answer(answer);
                }
            }
            Step::Heard => self.hear()?,
            Step::Binary(_) => return Err(Closed::ByServer(CloseCode::Unsupported)),
            Step::Text(text) => {
                self.hear()?;
                let answer = match ClientFrame::parse(&text) {
                    Ok(ClientFrame::Ping) => Answer::Pong,
                    Ok(ClientFrame::Auth { token }) => {
                        self.offered = Some(token);
                        return Ok(());
                    }
                    Ok(ClientFrame::Unknown) => Answer::UnknownType,
                    Err(_) => return Err(Closed::ByServer(CloseCode::Malformed)),
                };
                if self.socket.is_writing() {
                    self.owed = Some(answer);
                } else {
                    self.answer(answer);
                }
            }
        }
        Ok(())
    }

    pub(super) fn hear(&mut self) -> Result<(), Closed> {
        self.heard = self.shared.clock.now();
        self.pinged = None;
        let rate = self.shared.client_frames_per_second;
        if self.allowance.take(rate, Instant::now()) {
            Ok(())
        } else {
            Err(Closed::ByServer(CloseCode::RateLimited))
        }
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        self.socket.queue(answer.frame());
    }

    pub(super) fn notify(&mut self, notice: &Notice<'_>) {
        self.socket.queue(notice.frame());
    }

    /// Queues what the subscription brought.
    pub(super) fn take_news(
        &mut self,
        news: Result<Arc<Event>, RecvError>,
    ) -> Result<Taken, Closed> {
        match news {
            Ok(event) => self.take_event(event)?,
            Err(RecvError::Lagged(missed)) => {
                self.shared.metrics.lagged(missed);
                return Ok(Taken::Lagged);
            }
            // The hub keeps a sender while there is a receiver.
            Err(RecvError::Closed) => return Err(Closed::ByServer(CloseCode::Restart)),
        }
        Ok(Taken::Queued)
    }

    /// Queues an event that the subscription or memory brought, unless it has been sent.
    pub(super) fn take_event(&mut self, event: Arc<Event>) -> Result<(), Closed> {
        // Of one that only wakes it is 0.
        if event.sequence <= self.sequence {
            return Ok(());
        }
        self.sequence = event.sequence;
        if self.was_replayed(&event) {
            return Ok(());
        }
        if self.replayed.is_none() {
            self.passed.clone_from(&event.passed);
        }
        self.queue_event(event)
    }

    pub(super) fn queue_event(&mut self, event: Arc<Event>) -> Result<(), Closed> {
        if event.kind == EventKind::Revocation {
            return self.take_revocation(&event);
        }
        self.doubt_after(&event);
        let encoding = match self.encoding {
            Encoding::V1 if self.replayed.is_some() => Encoding::Plain,
            Encoding::V1 => Encoding::V1,
            _ if event.is_reset() => return Ok(()),
            encoding => encoding,
        };
        self.socket.queue(event.frame(encoding));
        self.shared.metrics.event_sent(&event);
        self.batch.add(event);
        Ok(())
    }

    /// Passes the feed's cursor if nothing waits that came before it.
    pub(super) fn take_cursor(&mut self) {
        // Read before the subscription is found empty: everything up to it has been taken.
        let cursor = self.shared.feed.borrow().cursor().cloned();
        if let Some(cursor) = cursor
            && self.subscription.receiver().is_empty()
        {
            self.pass(cursor);
        }
    }

    /// The heartbeat that a v1 client can see: how far it is.
    pub(super) fn tell_cursor(&mut self) {
        if self.encoding != Encoding::V1 || self.behind {
            return;
        }
        self.take_cursor();
        let cursor = self.told().map(|cursor| cursor.to_string());
        self.notify(&Notice::Cursor {
            cursor: cursor.as_deref(),
        });
    }
}
