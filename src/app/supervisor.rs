//! The service's tasks, each by its name.
//!
//! The service needs each of them for as long as it runs. The supervisor starts them, and says which one ended and
//! why if one returns or panics; the service then drains and fails. Only here are tasks started: a task that
//! nobody watches could end and leave a service that looks well.

use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::task::JoinSet;

use crate::metrics::panic_message;

/// A task of the service. Its name in the log is the variant's in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Task {
    /// Receives PostgreSQL's notifications, reads the log, and routes the events.
    Listener,
    /// Holds the database's wake lock while the triggers need not notify.
    WakeLock,
    /// Streams the log's rows from the write-ahead log.
    WalStream,
    /// Holds the connection to the bus.
    Bus,
    /// Publishes the leader's marks.
    BusMarks,
    /// Tries for the leader's lock, and holds it.
    Election,
    /// Writes this node's row in the database.
    Presence,
    /// Looks whether the write-ahead log can be streamed by now, where nobody has chosen the way of ingest.
    IngestChoice,
    /// Sends barriers.
    Barriers,
    /// Looks up when the rows of sampled events were created.
    LatencyRecorder,
    /// Wakes connections at their deadlines.
    Clock,
    /// Clears what the metrics no longer need.
    MetricsUpkeep,
    /// Watches PostgreSQL's notification queue.
    QueueWatch,
    /// Looks whether the triggers that write the log are in their places.
    TriggerWatch,
    /// Looks whether the service's role has its rights.
    RightsWatch,
    /// Makes and drops the log's partitions.
    LogRetention,
    /// Fetches the keys with which tokens are signed.
    KeysRefresh,
    /// Looks up again the identities of connections that may have missed a revocation.
    IdentityConfirmations,
    /// Reads the certificate again at SIGHUP.
    TlsReload,
    /// Accepts clients, and serves them until they have a WebSocket.
    Acceptor,
    /// Accepts operators on the address of the metrics.
    OperatorAcceptor,
}

/// A task that ended.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the task {task} {cause}")]
pub struct TaskEnded {
    /// Which.
    pub task: Task,
    /// Why.
    pub cause: Cause,
}

/// Why a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It had nothing more to do.
    Returned,
    /// It panicked with this message.
    Panicked(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("returned"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// The tasks that run. They are aborted when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    tasks: JoinSet<TaskEnded>,
    running: Vec<Task>,
}

impl Supervisor {
    /// Starts a task.
    #[expect(clippy::disallowed_methods, reason = "the supervisor starts all tasks")]
    pub(super) fn spawn(&mut self, task: Task, work: impl Future<Output = ()> + Send + 'static) {
        self.running.push(task);
        self.tasks.spawn(async move {
            let cause = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(()) => Cause::Returned,
                Err(panic) => Cause::Panicked(panic_message(&*panic).to_owned()),
            };
            TaskEnded { task, cause }
        });
    }

    /// Waits for a task to end. Pending while there is none. Cancel-safe.
    pub(super) async fn next_end(&mut self) -> TaskEnded {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => {
                    if let Some(index) = self.running.iter().position(|task| *task == ended.task) {
                        self.running.swap_remove(index);
                    }
                    return ended;
                }
                // Aborted: the runtime is shutting down.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }

    /// Waits until no task of these kinds runs.
    pub(super) async fn all_ended(&mut self, of: &[Task]) {
        while self.count(of) > 0 {
            self.next_end().await;
        }
    }

    /// How many tasks of these kinds run.
    pub(super) fn count(&self, of: &[Task]) -> usize {
        self.running.iter().filter(|task| of.contains(task)).count()
    }

    /// Ends all tasks where they are: those that still run hold nothing that must be saved.
    pub(super) async fn abort_all(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_each_task_is_reported_with_its_name_and_message() {
        for task in Task::VARIANTS.iter().copied() {
            let mut supervisor = Supervisor::default();
            for other in Task::VARIANTS
                .iter()
                .copied()
                .filter(|other| *other != task)
            {
                supervisor.spawn(other, std::future::pending());
            }
            supervisor.spawn(task, async move { panic!("{task:?} is broken") });
            let ended = supervisor.next_end().await;
            let cause = Cause::Panicked(format!("{task:?} is broken"));
            assert_eq!(ended, TaskEnded { task, cause });
            let error = format!("the task {task} panicked: {task:?} is broken");
            assert_eq!(ended.to_string(), error);
        }
    }

    #[tokio::test]
    async fn a_task_that_returns_is_reported() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn(Task::Clock, std::future::pending());
        supervisor.spawn(Task::Listener, async {});
        let ended = supervisor.next_end().await;
        assert_eq!(ended.to_string(), "the task listener returned");
        assert_eq!(supervisor.count(Task::VARIANTS), 1);
    }

    #[tokio::test]
    async fn the_end_of_some_tasks_can_be_waited_for() {
        let mut supervisor = Supervisor::default();
        supervisor.spawn(Task::Clock, std::future::pending());
        for _ in 0..3 {
            supervisor.spawn(Task::Acceptor, tokio::task::yield_now());
        }
        assert_eq!(supervisor.count(&[Task::Acceptor]), 3);
        supervisor.all_ended(&[Task::Acceptor]).await;
        assert_eq!(supervisor.count(Task::VARIANTS), 1);
        supervisor.abort_all().await;
    }
}
