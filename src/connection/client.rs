//! A connected client: what waits, moves bytes and asks the parts that decide.
//!
//! A single task owns the socket and the subscription. The socket is always read, also while a write is blocked,
//! with one exception: an answer that waits for a blocked socket stops the reading, so that nothing a client
//! sends piles up here. Events that are ready together are written together and flushed once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hushnet_websocket::{Frame, Socket, SocketEvent, Stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep_until;
use uuid::Uuid;

use super::choice::Choice;
use super::deadlines::Deadlines;
use super::moment::Moment;
use super::outbox::Outbox;
use super::pending::{PendingConnection, Since};
use super::position::{Position, Source, Verdict};
use super::revocation::{Check, Holder};
use super::shared::Shared;
use crate::delivery::Subscription;
use crate::identity::Identity;
use crate::limits::Allowance;
use crate::metrics::Metrics;
use crate::protocol::{
    Answer, AuthError, ClientFrame, CloseCode, Closed, Encoding, Notice, Signal, UserType,
};

/// How often a connection that takes no signals looks at the wall clock, if its proof expires.
const WALL_CLOCK_INTERVAL: Duration = Duration::from_millis(500);

/// A client that is connected.
#[derive(Debug)]
pub struct Connection<S> {
    /// The name in the log, which a v1 client gets in its hello.
    pub(super) id: Uuid,
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Socket<S>,
    pub(super) subscription: Subscription,
    pub(super) encoding: Encoding,
    pub(super) choice: Choice,
    /// The type of users when the client came. When it is another, its user is another's or nobody's.
    pub(super) user_type: UserType,
    pub(super) position: Position,
    pub(super) holder: Holder,
    pub(super) outbox: Outbox,
    pub(super) deadlines: Deadlines,
    /// The frames that the client may still send.
    allowance: Allowance,
}

/// What a connection has waited for.
#[derive(Debug)]
pub(super) enum Wakeup {
    /// The subscription brought something.
    Signal(Result<Arc<Signal>, RecvError>),
    /// Something has happened on the socket.
    Socket(SocketEvent),
    /// The kernel does not take everything that is to be written.
    Blocked,
    /// It has been dealt with.
    Done,
}

/// What became of what the subscription brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is queued, unless it was sent before.
    Queued,
    /// Signals were lost before it.
    Lagged,
}

impl<S: Stream> Connection<S> {
    /// A client that has been answered with 101, and the cursor that it came with.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        socket: Socket<S>,
        pending: PendingConnection,
    ) -> (Self, Option<Since>) {
        let now = shared.clock.now();
        let mut connection = Self {
            id: Uuid::new_v4(),
            shared,
            socket,
            subscription: pending.subscription,
            encoding: pending.encoding,
            choice: Choice(pending.kinds),
            user_type: pending.user_type,
            position: Position::new(pending.subscribed_after),
            holder: Holder::new(pending.identity, pending.feed_was_live),
            outbox: Outbox::default(),
            deadlines: Deadlines::new(now, None, pending.encoding == Encoding::V1),
            allowance: Allowance::default(),
        };
        connection.follow_wall_clock();
        (connection, pending.since)
    }

    /// The connection's name in the log.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Where the connection is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Closes the socket as the ending demands.
    pub async fn close(self, ending: Closed) {
        // Nothing more is delivered: leave the hub before the close frame.
        drop(self.subscription);
        let closing = self.shared.close_queue.close(self.socket, ending.into());
        closing.await;
    }

    /// Waits for signals, and writes them when no more are ready. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Wakeup {
        let has_room = self.socket.has_room();
        let answer_waits = !self.outbox.may_read();
        let socket = poll_fn(|context| {
            if self.socket.is_writing() {
                match self.socket.poll_flush(context) {
                    Poll::Pending => return Poll::Ready(Wakeup::Blocked),
                    Poll::Ready(Err(ended)) => {
                        return Poll::Ready(Wakeup::Socket(SocketEvent::Ended(ended)));
                    }
                    Poll::Ready(Ok(())) if answer_waits || !has_room => {
                        return Poll::Ready(Wakeup::Socket(SocketEvent::Flushed));
                    }
                    Poll::Ready(Ok(())) => self.shared.count_delivered(&mut self.outbox),
                }
            }
            self.socket.poll_receive(context).map(Wakeup::Socket)
        });
        tokio::select! {
            biased;
            signal = self.subscription.receiver().recv(), if has_room => Wakeup::Signal(signal),
            wakeup = socket => wakeup,
        }
    }

    /// Waits while a write is blocked, or no barrier covers a replay yet.
    pub(super) async fn wait_with_timers(&mut self) -> Result<Wakeup, Closed> {
        let shared = Arc::clone(&self.shared);
        let writing = self.is_writing();
        let may_read = self.outbox.may_read();
        let deadline = self.timer();
        let settling =
            !writing && self.position.is_settling() && self.subscription.receiver().is_empty();
        let leaving = self.deadlines.leaves_at().is_some();
        let (position, mut feed) = (&self.position, shared.feed.clone());
        // The feed's lock is let go of before the feed is looked at again.
        let settled = async {
            let settled = feed.wait_for(|feed| position.settles_at(feed.cursor()));
            settled.await.is_ok()
        };
        tokio::select! {
            biased;
            event = self.socket.next_event(may_read) => return Ok(Wakeup::Socket(event)),
            signal = self.subscription.receiver().recv(), if !writing => return Ok(Wakeup::Signal(signal)),
            // A connection that takes its signals is woken by one when the drain begins.
            () = shared.drain.begun(), if writing && !leaving => {}
            true = settled, if settling => self.settle(),
            () = sleep_until(deadline) => self.take_due(shared.clock.exactly_now())?,
        }
        Ok(Wakeup::Done)
    }

    /// Waits for something else while the socket is served as always.
    pub(super) async fn meanwhile<T>(
        &mut self,
        other: impl Future<Output = T>,
    ) -> Result<T, Closed> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                served = self.serve_socket() => served?,
            }
        }
    }

    /// Waits until everything queued is with the kernel.
    pub(super) async fn flush(&mut self) -> Result<(), Closed> {
        while self.is_writing() {
            self.serve_socket().await?;
        }
        Ok(())
    }

    /// What goes on whatever else is waited for. Cancel-safe.
    async fn serve_socket(&mut self) -> Result<(), Closed> {
        self.is_writing();
        let shared = Arc::clone(&self.shared);
        let may_read = self.outbox.may_read();
        let deadline = self.timer();
        let leaving = self.deadlines.leaves_at().is_some();
        tokio::select! {
            biased;
            () = shared.drain.begun(), if !leaving => {
                self.prepare_to_leave();
                Ok(())
            }
            event = self.socket.next_event(may_read) => self.take_socket_event(event),
            () = sleep_until(deadline) => self.take_due(shared.clock.exactly_now()),
        }
    }

    /// Whether something is to be written. The write timeout runs from the first time that this is so.
    fn is_writing(&mut self) -> bool {
        let is_writing = self.socket.is_writing();
        if is_writing {
            self.deadlines.writing(|| self.shared.clock.exactly_now());
        }
        is_writing
    }

    pub(super) fn take_socket_event(&mut self, event: SocketEvent) -> Result<(), Closed> {
        match event {
            SocketEvent::Ended(ended) => return Err(ended.into()),
            SocketEvent::Flushed => {
                self.deadlines.flushed();
                self.shared.count_delivered(&mut self.outbox);
                if let Some(answer) = self.outbox.take_answer() {
                    self.socket.queue(answer.frame());
                }
            }
            SocketEvent::Alive => self.see_client()?,
            SocketEvent::Binary(_) => return Err(Closed::ByServer(CloseCode::Unsupported)),
            SocketEvent::Text(text) => {
                self.see_client()?;
                let frame = ClientFrame::parse(&text);
                self.take_client_frame(frame.map_err(|_| Closed::ByServer(CloseCode::Malformed))?);
            }
        }
        Ok(())
    }

    fn take_client_frame(&mut self, frame: ClientFrame) {
        let answer = match frame {
            ClientFrame::Ping => Answer::Pong,
            ClientFrame::Auth { token } => return self.holder.offer(token),
            ClientFrame::Unknown => Answer::UnknownType,
        };
        if let Some(answer) = self.outbox.owe(answer, self.socket.is_writing()) {
            self.socket.queue(answer.frame());
        }
    }

    fn see_client(&mut self) -> Result<(), Closed> {
        self.deadlines.see(self.shared.clock.now());
        let rate = self.shared.client_frames_per_second;
        if self.allowance.take(rate, Instant::now()) {
            Ok(())
        } else {
            Err(Closed::ByServer(CloseCode::RateLimited))
        }
    }

    pub(super) fn notify(&mut self, notice: &Notice<'_>) {
        self.socket.queue(notice.frame());
    }

    /// Queues what the subscription brought.
    pub(super) fn take_received(
        &mut self,
        received: Result<Arc<Signal>, RecvError>,
    ) -> Result<Taken, Closed> {
        match received {
            Ok(signal) if matches!(*signal, Signal::Behind) => {
                self.shared.metrics.lagged(1);
                return Ok(Taken::Lagged);
            }
            Ok(signal) => self.take_signal(signal, Source::Live)?,
            Err(RecvError::Lagged(missed)) => {
                self.shared.metrics.lagged(missed);
                // The wall clock may have been changed.
                self.deadlines.look_now();
                return Ok(Taken::Lagged);
            }
            // The hub keeps a sender while there is a receiver.
            Err(RecvError::Closed) => return Err(Closed::ByServer(CloseCode::Restart)),
        }
        Ok(Taken::Queued)
    }

    /// Queues a signal that was routed, unless it was sent before.
    pub(super) fn take_signal(
        &mut self,
        signal: Arc<Signal>,
        source: Source,
    ) -> Result<(), Closed> {
        if matches!(*signal, Signal::Reset(_)) {
            // A revocation may have been missed in the gap.
            self.holder.doubt();
        }
        match self.position.take(&signal, source) {
            Verdict::Skip if matches!(*signal, Signal::ClockChanged) => self.deadlines.look_now(),
            Verdict::Skip => self.holder.skip(&signal),
            Verdict::Send { with_cursor } => self.queue_signal(signal, with_cursor)?,
        }
        Ok(())
    }

    /// Queues a signal, or ends the connection if the signal revokes it.
    pub(super) fn queue_signal(
        &mut self,
        signal: Arc<Signal>,
        with_cursor: bool,
    ) -> Result<(), Closed> {
        match &*signal {
            Signal::Revocation(revocation) if self.holder.is_revoked_by(revocation) => {
                return Err(Closed::ByServer(CloseCode::Revoked));
            }
            Signal::Event(event) if !self.choice.admits(event, self.encoding) => return Ok(()),
            _ => {}
        }
        let encoding = match self.encoding {
            Encoding::V1 if !with_cursor => Encoding::Plain,
            encoding => encoding,
        };
        if matches!(&*signal, Signal::Event(event) if event.in_log.is_some()) {
            self.outbox.owe_large(signal, encoding);
        } else if let Some(frame) = signal.frame(encoding) {
            self.socket.queue(frame);
            self.shared.metrics.signal_sent(&signal);
            self.outbox.add(signal);
        }
        Ok(())
    }

    /// Goes on to the feed's cursor if nothing waits that came before it.
    fn take_cursor(&mut self) {
        // Read before the subscription is found empty: everything up to it has been taken.
        let cursor = self.shared.feed.borrow().cursor().cloned();
        if let Some(cursor) = cursor
            && self.subscription.receiver().is_empty()
        {
            self.position.advance(cursor);
        }
    }

    /// A completed barrier covers the replay: a v1 client is given its cursor.
    fn settle(&mut self) {
        self.take_cursor();
        if !self.position.is_settling() {
            self.send_cursor();
        }
    }

    /// Sends a v1 client the cursor that it may keep.
    pub(super) fn send_cursor(&mut self) {
        if self.encoding != Encoding::V1 {
            return;
        }
        let cursor = self.position.client_cursor().map(ToString::to_string);
        self.notify(&Notice::Cursor {
            cursor: cursor.as_deref(),
        });
    }

    /// The proof expires when the wall clock says so, which may have been changed.
    fn follow_wall_clock(&mut self) {
        let clock = &self.shared.clock;
        let left = self.holder.time_left(clock.wall_now());
        let expires = left.map(|left| match left {
            Duration::ZERO => Moment::NEVER_YET,
            left => clock.exactly_now() + left,
        });
        self.deadlines.expire_at(expires);
    }

    /// When the next deadline is, for a connection that takes no signals. It looks at the wall clock by itself.
    fn timer(&self) -> tokio::time::Instant {
        let clock = &self.shared.clock;
        let next = self.deadlines.next(&self.shared.timeouts);
        clock.instant(if self.deadlines.has_expiry() {
            next.min(clock.exactly_now() + WALL_CLOCK_INTERVAL)
        } else {
            next
        })
    }

    /// Does what is due, and has the clock wake the connection for what comes next.
    pub(super) fn look_at_deadlines(&mut self) -> Result<(), Closed> {
        let shared = Arc::clone(&self.shared);
        self.take_due(shared.clock.now())?;
        let user = self.subscription.user();
        let next = self.deadlines.next(&shared.timeouts);
        self.deadlines.look_at(shared.clock.wake_at(user, next));
        Ok(())
    }

    fn take_due(&mut self, now: Moment) -> Result<(), Closed> {
        self.follow_wall_clock();
        let due = self.deadlines.take_due(now, &self.shared.timeouts);
        let due = due.map_err(Closed::ByServer)?;
        if due.confirm {
            self.holder.doubt();
            self.watch_identity();
        }
        if due.ping {
            self.socket.queue(Frame::ping());
            // The heartbeat that a v1 client can see.
            if !self.position.is_replaying() && self.encoding == Encoding::V1 {
                self.take_cursor();
                self.send_cursor();
            }
        }
        Ok(())
    }

    /// The server is ending: the client has its own time to go, and gets its events until then.
    pub(super) fn prepare_to_leave(&mut self) {
        let delay = self.shared.drain.next_delay();
        self.deadlines
            .leave_at(self.shared.clock.exactly_now() + delay);
        self.announce_leaving();
    }

    /// Tells a v1 client that has had its first frame when to come back, if it has to go.
    pub(super) fn announce_leaving(&mut self) {
        let (Some(leave_at), true) = (self.deadlines.leaves_at(), self.outbox.is_greeted()) else {
            return;
        };
        let left = leave_at.since(self.shared.clock.exactly_now());
        let retry_after_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.notify(&Notice::Goaway { retry_after_ms });
    }

    /// Sets the time of the next look-up of the identity, where nothing tells of a revocation.
    pub(super) fn watch_identity(&mut self) {
        let has_no_log = self.position.repair_from().is_none();
        let now = self.shared.clock.now();
        let next = now + self.shared.timeouts.ping_interval;
        let has_to_look = self.holder.is_identified() && has_no_log;
        self.deadlines.confirm_at(has_to_look.then_some(next));
    }

    /// Looks the identity up again if it is in doubt, and checks a newer token if there is one.
    pub(super) async fn check_identity(&mut self) -> Result<(), Closed> {
        let shared = Arc::clone(&self.shared);
        while let Some(check) = self.holder.take_check() {
            match check {
                Check::Confirm(identity) => {
                    let confirmed = self.meanwhile(shared.auth.confirm_again(identity)).await?;
                    confirmed.map_err(|error| Closed::ByServer(error.close_code()))?;
                    self.watch_identity();
                }
                Check::Renew(identity, token) => {
                    // The answers of a client that asks without reading must not pile up.
                    self.flush().await?;
                    let renewed = match &identity {
                        Some(identity) => {
                            self.meanwhile(shared.auth.renew(identity, token)).await?
                        }
                        None => Err(AuthError::CredentialsMissing),
                    };
                    self.answer_renewal(renewed);
                }
            }
        }
        Ok(())
    }

    /// The time until the token expires; `None` where nothing expires.
    pub(super) fn expires_in_ms(&self) -> Option<u64> {
        let left = self.holder.time_left(self.shared.clock.wall_now())?;
        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }

    fn answer_renewal(&mut self, renewed: Result<Identity, AuthError>) {
        match renewed {
            Ok(renewed) => {
                self.holder.renew(renewed);
                self.follow_wall_clock();
                self.notify(&Notice::Authenticated {
                    expires_in_ms: self.expires_in_ms(),
                });
            }
            // The proof of before stands for as long as it is good.
            Err(error) => {
                self.shared.metrics.identities_refused.increment(error);
                self.notify(&Notice::Error(error.error_body()));
            }
        }
    }
}
