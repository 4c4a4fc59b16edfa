//! Serves the HTTP requests of one connection, until it ends or becomes a WebSocket.
//!
//! Bounds the time and the size of a request's head. A panic in a request ends its connection and no other.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use warp::http::HeaderMap;
use warp::reply::Response;

use super::client_address::ClientAddress;
use super::connection_permit::{ConnectionPermit, Permits};
use super::preamble::Preamble;
use super::transport::Transport;
use crate::limits::Limits;
use crate::metrics::{Metrics, Panicked, Rejected, panic_message};

/// The head of a request, in bytes: hyper's smallest buffer.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;

/// A request's headers. They are taken out of the request and shared by the filters: a clone of them costs
/// more than finding the route.
pub(crate) type Headers = Arc<HeaderMap>;

/// A connection that has been accepted.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) permits: Permits,
}

/// Serves connections with these routes.
pub(super) struct HttpServer<R> {
    routes: R,
    preamble: Preamble,
    request_head_timeout: Duration,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    ending: AtomicU8,
}

/// Which connections are to end. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Ending {
    None,
    /// Those that have had a request, after it. The first request of another is on its way: to close before it is read
    /// resets the connection, and a balancer hands that on to its client as an error.
    Served,
    All,
}

impl<R> HttpServer<R>
where
    R: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible>,
    R: Send + Sync + 'static,
    R::Future: Send,
{
    pub(super) fn new(
        routes: R,
        preamble: Preamble,
        request_head_timeout: Duration,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            routes,
            preamble,
            request_head_timeout,
            limits,
            metrics,
            ending: AtomicU8::new(Ending::None as u8),
        }
    }

    /// Lets these connections end. They look when they are polled next.
    pub(super) fn end(&self, which: Ending) {
        self.ending.fetch_max(which as u8, AcqRel);
    }

    fn ends(&self, served: bool) -> bool {
        let least = if served { Ending::Served } else { Ending::All };
        self.ending.load(Acquire) >= least as u8
    }

    /// Serves a connection. Never panics.
    pub(super) async fn serve(self: Arc<Self>, accepted: Accepted) {
        let peer = accepted.peer;
        let serving = AssertUnwindSafe(self.serve_requests(accepted)).catch_unwind();
        if let Err(panic) = serving.await {
            let message = panic_message(&*panic);
            tracing::error!(event = "request_panicked", %peer, message);
            self.metrics.panics.increment(Panicked::Request);
        }
    }

    /// Serves a connection from its first byte until it has become a WebSocket, or ended.
    async fn serve_requests(&self, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            mut permits,
        } = accepted;
        let Some((transport, client)) = self.read_preamble(stream, peer).await else {
            return;
        };
        if client != peer {
            // What the acceptor has counted is the proxy.
            match self.limits.admit_peer(client) {
                Ok(of_client) => permits.client = of_client,
                Err(refusal) => {
                    let reason = Rejected::Limit(refusal.limit);
                    return self.metrics.connections_rejected.increment(reason);
                }
            }
        }
        let permit = ConnectionPermit::new(permits);
        let trusted = &self.preamble.trusted_proxies;
        let served = AtomicBool::new(false);
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            served.store(true, Relaxed);
            let headers = std::mem::take(request.headers_mut());
            let extensions = request.extensions_mut();
            extensions.insert(ClientAddress::of(client, &headers, trusted));
            extensions.insert::<Headers>(Arc::new(headers));
            extensions.insert(permit.clone());
            self.routes.call(request)
        });
        self.speak_http(transport, service, &served).await;
    }

    /// Reads what comes before HTTP, in the time for a request's head. `None` if that fails, or when the
    /// server stops.
    async fn read_preamble(&self, stream: TcpStream, peer: IpAddr) -> Option<(Transport, IpAddr)> {
        if self.preamble.is_empty() {
            return Some((Transport::Plain(stream), peer));
        }
        // Boxed: a TLS handshake's state is large, and most connections come without TLS.
        let reading = Box::pin(self.preamble.read(stream, peer));
        let mut reading = pin!(tokio::time::timeout(self.request_head_timeout, reading));
        let read = poll_fn(|context| match reading.as_mut().poll(context) {
            Poll::Pending if self.ends(false) => Poll::Ready(None),
            polled => polled.map(Some),
        });
        match read.await? {
            Ok(Ok(read)) => Some(read),
            Ok(Err(error)) => {
                tracing::debug!(event = "greeting_failed", %error);
                None
            }
            Err(_) => None,
        }
    }

    async fn speak_http<S>(&self, transport: Transport, service: S, served: &AtomicBool)
    where
        S: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible> + Send,
        S::Future: Send,
    {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.request_head_timeout)
            .max_buf_size(REQUEST_HEAD_BYTES_MAX);
        let connection = http
            .serve_connection(TokioIo::new(transport), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut shutting_down = false;
        // An error is the client's: it sent no HTTP, or left.
        let _ = poll_fn(|context| {
            loop {
                let polled = connection.as_mut().poll(context);
                if polled.is_ready() || shutting_down || !self.ends(served.load(Relaxed)) {
                    return polled;
                }
                shutting_down = true;
                connection.as_mut().graceful_shutdown();
            }
        })
        .await;
    }
}
