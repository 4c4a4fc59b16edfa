//! The signals that end the service.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::exit;

/// The exit code of a process that a signal ended, by the shell's rule: this plus the signal's number.
const KILLED: i32 = 128;

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Waits for SIGTERM or SIGINT; returns the exit code of a process that it ends.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => KILLED + SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => KILLED + SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// Runs `serve` to its end. The first SIGTERM or SIGINT makes the future ready that it is given; a second one
/// ends the process at once.
pub(super) async fn stopping_on_signal<T>(
    serve: impl AsyncFnOnce(oneshot::Receiver<()>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    // A service without a certificate has nothing to do at SIGHUP, and must not end by it.
    drop(signal(SignalKind::hangup())?);
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let (stop, stopped) = oneshot::channel();
    let second = async {
        signals.next().await;
        // The service may have ended by itself.
        let _ = stop.send(());
        signals.next().await
    };
    tokio::select! {
        served = serve(stopped) => served,
        code = second => exit::at_once(code),
    }
}
