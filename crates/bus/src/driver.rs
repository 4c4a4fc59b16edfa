//! Holds a connection, for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::error::BusError;
use crate::event::BusEvent;
use crate::handle::{Bus, BusEvents, Shared};
use crate::login::{self, AnyWire, Connection};
use crate::servers::Servers;
use crate::session;
use crate::tls::TlsSettings;
use crate::url::BusUrl;

/// A connection that has lasted as long was good: the next attempt comes soon after its end.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Opens a bus. Nothing happens until the returned future, the driver, is polled: the caller runs it as a task of a
/// tokio runtime with I/O and time. It ends when the [`BusEvents`] are dropped.
///
/// `tls` matters where the URL, or a NATS server, asks for TLS.
pub fn open(
    url: BusUrl,
    tls: TlsSettings,
) -> (Bus, BusEvents, impl Future<Output = ()> + Send + 'static) {
    let shared = Arc::new(Shared::default());
    let bus = Bus::new(Arc::clone(&shared));
    let events = BusEvents::new(Arc::clone(&shared));
    let driver = async move {
        tokio::select! {
            () = drive(&shared, &url, &tls) => {}
            () = shared.outbound.closed() => {}
        }
    };
    (bus, events, driver)
}

async fn drive(shared: &Shared, url: &BusUrl, tls: &TlsSettings) {
    let mut servers = Servers::new(url, rand::random_range(0..usize::MAX));
    let mut backoff = Backoff::default();
    loop {
        shared.inbound.room().await;
        let error = match login::connect(url, servers.next(), tls).await {
            Ok(connection) => {
                let connected = Instant::now();
                let error = serve(shared, connection).await;
                if connected.elapsed() >= GOOD_AFTER {
                    backoff.reset();
                }
                error
            }
            Err(error) => error,
        };
        shared.inbound.control(BusEvent::Disconnected(error));
        sleep(backoff.next(rand::random())).await;
    }
}

async fn serve(shared: &Shared, connection: Connection) -> BusError {
    let _publishing = Publishing::start(shared, connection.payload_bytes_max);
    shared.inbound.control(BusEvent::Connected);
    match connection.wire {
        AnyWire::Redis(wire) => session::run(shared, wire, connection.transport).await,
        AnyWire::Nats(wire) => session::run(shared, *wire, connection.transport).await,
    }
}

/// While it is there, messages are taken; also a driver that is dropped takes none.
struct Publishing<'a>(&'a Shared);

impl<'a> Publishing<'a> {
    fn start(shared: &'a Shared, payload_bytes_max: usize) -> Self {
        shared.outbound.connected(payload_bytes_max);
        Self(shared)
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.outbound.disconnected();
    }
}
