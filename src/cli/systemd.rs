//! The messages to systemd, and the socket that it may hand over. Without systemd nothing here does anything.

use std::convert::Infallible;
use std::net::TcpListener;

use anyhow::Context;
use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The process tells the watchdog that it lives after this part of the watchdog's time.
const WATCHDOG_SHARE: u32 = 3;

/// The socket on which systemd listens for us. It stays open while the service is restarted: clients that connect
/// meanwhile wait, and none is refused.
pub(super) fn socket() -> anyhow::Result<Option<TcpListener>> {
    ListenFd::from_env()
        .take_tcp_listener(0)
        .context("the first socket that systemd handed over does not listen on TCP")
}

/// Tells systemd that connections are accepted.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that the service is ending.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd's watchdog that the process lives, again and again. Runs on the service's own runtime: when that
/// is stuck, the watchdog must not be notified.
pub(super) async fn keep_alive() -> Infallible {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut interval = tokio::time::interval(within / WATCHDOG_SHARE);
    loop {
        interval.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(event = "systemd_not_told", %error);
    }
}
