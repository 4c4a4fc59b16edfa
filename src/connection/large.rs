//! Large events: read from the log when it is their turn, one at a time, and written before anything else.

use std::sync::Arc;
use std::time::Duration;

use hushnet_websocket::Stream;
use tokio::time::sleep;

use super::client::Connection;
use crate::protocol::{CloseCode, Closed, Encoding, Event, InLog, Signal};
use crate::store;

/// How often something is read that takes too long; then the client is closed and may try again later.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// Between two attempts.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// Sends the large event that waits, if there is one. Returns when it is with the kernel.
pub(super) async fn send<S: Stream>(connection: &mut Connection<S>) -> Result<(), Closed> {
    let Some((signal, encoding)) = connection.outbox.take_large() else {
        return Ok(());
    };
    let Signal::Event(event) = &*signal else {
        return Ok(());
    };
    let Some(in_log) = event.in_log.as_deref() else {
        return Ok(());
    };
    let shared = Arc::clone(&connection.shared);
    // What was queued before leaves first: there is no second copy of the event, and no room is held meanwhile.
    connection.flush().await?;
    let room = shared.limits.large_event(in_log.bytes as usize);
    let _room = connection.meanwhile(room).await?;
    let text = read(connection, event, *in_log).await?;
    connection.flush().await?;
    connection.deadlines.writing_bytes(text.len());
    connection.socket.queue(event.frame_of(encoding, &text));
    drop(text);
    shared.metrics.signal_sent(&signal);
    connection.outbox.add(signal);
    connection.flush().await
}

async fn read<S: Stream>(
    connection: &mut Connection<S>,
    event: &Event,
    in_log: InLog,
) -> Result<String, Closed> {
    let shared = Arc::clone(&connection.shared);
    let user = connection.subscription.user();
    let (Some(id), Some(cursor)) = (event.id, &event.cursor) else {
        tracing::warn!(
            event = "large_event_unread",
            id = event.id,
            error = "it is of no history"
        );
        return Err(Closed::ByServer(CloseCode::TryAgainLater));
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let reading = async {
            let _permit = shared.limits.large_read().await;
            let beginning = event.frame(Encoding::Plain);
            let event = (user, id, in_log);
            let log = &shared.log;
            log.read_large(event, beginning.as_text(), cursor).await
        };
        let error = match connection.meanwhile(reading).await? {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        let again = attempts < ATTEMPTS_MAX && store::may_pass(&error);
        tracing::warn!(event = "large_event_unread", id, %error, again);
        if !again {
            // The client keeps its cursor, and nothing is lost.
            return Err(Closed::ByServer(CloseCode::TryAgainLater));
        }
        connection.meanwhile(sleep(RETRY)).await?;
    }
}
