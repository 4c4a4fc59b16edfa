//! The end of the service: clients leave one after the other, then requests end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::supervisor::{Supervisor, Task};
use crate::config::Config;
use crate::edge::FIRST_REQUEST;
use crate::http::Api;
use crate::protocol::Signal;

/// Time beyond the deadline for requests that are being answered.
const REQUESTS_GRACE: Duration = FIRST_REQUEST.saturating_add(Duration::from_millis(250));
/// The tasks that end by themselves once nothing more is accepted.
const ACCEPTORS: &[Task] = &[Task::Acceptor, Task::OperatorAcceptor];

/// Sends every client away at its time, then ends the requests. Returns how many tasks are left over.
pub(super) async fn drain(
    config: &Config,
    api: &Api,
    stop_accepting: CancellationToken,
    supervisor: &mut Supervisor,
) -> usize {
    let clients = &api.tasks;
    let deadline = config.drain_deadline();
    let (open, rate) = (clients.len(), config.drain_clients_per_second);
    let takes = api.shared.drain.begin(open, rate, deadline);
    api.shared.hub.publish_to_all(&Arc::new(Signal::Wake));
    tracing::info!(
        event = "draining",
        clients = open,
        takes_ms = takes.as_millis()
    );
    clients.close();
    let over = Instant::now() + deadline;
    // New clients are refused with an answer until the last client has left.
    let _ = timeout_at(over, clients.wait()).await;
    stop_accepting.cancel();
    let over = over + REQUESTS_GRACE;
    let _ = timeout_at(over, supervisor.all_ended(ACCEPTORS)).await;
    // Those whose handshakes were being answered when the drain began.
    let _ = timeout_at(over, clients.wait()).await;
    clients.len() + supervisor.count(ACCEPTORS)
}
