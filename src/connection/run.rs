//! The loop of one connection, from its first frame until either side ends it.
//!
//! Live, the connection waits for the hub and its socket and for nothing else: it has no timer. The clock and the
//! drain wake it through the hub. While a write is blocked or a replay settles, it has timers of its own.

use std::convert::Infallible;
use std::sync::Arc;

use hushnet_websocket::Stream;

use super::client::{Connection, Taken, Wakeup};
use super::large;
use super::pending::Since;
use super::replay::Replay;
use crate::protocol::{CloseCode, Closed, Encoding};

/// Serves the client until either side ends the connection, and returns why.
pub async fn run<S: Stream>(connection: &mut Connection<S>, since: Option<Since>) -> Closed {
    let Err(ending) = serve(connection, since).await;
    ending
}

async fn serve<S: Stream>(
    connection: &mut Connection<S>,
    since: Option<Since>,
) -> Result<Infallible, Closed> {
    let shared = Arc::clone(&connection.shared);
    if connection.encoding == Encoding::V1 {
        // Boxed: its state is large, and gone before the long wait begins.
        Box::pin(Replay::of(connection).begin(since)).await?;
    } else {
        let cursor = shared.feed.borrow().cursor().cloned();
        connection.position.begin_at(cursor);
    }
    connection.position.end_replay();
    connection.watch_identity();
    loop {
        // Whoever finds the type changed wakes all connections.
        if connection.user_type != shared.user_type() {
            return Err(Closed::ByServer(CloseCode::TryAgainLater));
        }
        if connection.deadlines.leaves_at().is_none() && shared.drain.has_begun() {
            connection.prepare_to_leave();
        }
        if connection.deadlines.has_to_look(shared.clock.now()) {
            connection.look_at_deadlines()?;
        }
        if connection.holder.has_check() {
            Box::pin(connection.check_identity()).await?;
            continue;
        }
        let wakeup = if connection.deadlines.is_writing() || connection.position.is_settling() {
            // Boxed: a connection is seldom here, and has no room for it while it is not.
            Box::pin(connection.wait_with_timers()).await?
        } else {
            connection.wait().await
        };
        match wakeup {
            Wakeup::Signal(signal) => {
                if connection.take_received(signal)? == Taken::Lagged {
                    connection.position.begin_replay();
                    Box::pin(Replay::of(connection).repair()).await?;
                    connection.position.end_replay();
                }
                if connection.outbox.owes_large() {
                    Box::pin(large::send(connection)).await?;
                }
            }
            Wakeup::Socket(event) => connection.take_socket_event(event)?,
            Wakeup::Blocked => {
                let now = || shared.clock.exactly_now();
                connection.deadlines.writing(now);
            }
            Wakeup::Done => {}
        }
    }
}
