//! systemd: what it is told, and the socket that it may hand over. Without it, all of this does nothing.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Of the watchdog's time, the part after which it is told that the process lives.
const WATCHDOG_SHARE: u32 = 3;

/// The socket that systemd listens on for us. It stays open while the service is restarted: who connects
/// meanwhile waits, and is refused by nobody.
pub(super) fn socket() -> anyhow::Result<Option<TcpListener>> {
    ListenFd::from_env()
        .take_tcp_listener(0)
        .context("the first socket that systemd handed over does not listen on TCP")
}

/// Says that connections are accepted, and goes on saying that the process lives.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
    if let Some(within) = sd_notify::watchdog_enabled() {
        tokio::spawn(stay_alive(within / WATCHDOG_SHARE));
    }
}

/// Says that the service is ending.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// On the runtime that everything else runs on: where that is stuck, the watchdog hears nothing.
async fn stay_alive(interval: Duration) {
    let mut turn = tokio::time::interval(interval);
    loop {
        turn.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(event = "systemd_not_told", %error);
    }
}
