//! Serves the HTTP requests of one connection, until it ends or becomes a WebSocket.
//!
//! Bounds the time and the size of a request's head, and the time in which its answer is taken. A panic in a request
//! ends its connection and no other.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use warp::http::HeaderMap;
use warp::reply::Response;

use super::client_address::ClientAddress;
use super::connection_permit::{ConnectionPermit, Permits};
use super::preamble::Preamble;
use super::transport::Transport;
use crate::limits::{Limits, write_timeouts};
use crate::metrics::{Metrics, Panicked, Rejected, panic_message};

/// The head of a request, in bytes: hyper's smallest buffer.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Time for a client to take an answer when the server stops.
const LAST_ANSWER: Duration = Duration::from_secs(2);

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
    write_timeout: Duration,
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
        (request_head_timeout, write_timeout): (Duration, Duration),
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            routes,
            preamble,
            request_head_timeout,
            write_timeout,
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
        let requests = Requests::default();
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            requests.begun();
            let headers = std::mem::take(request.headers_mut());
            let extensions = request.extensions_mut();
            extensions.insert(ClientAddress::of(client, &headers, trusted));
            extensions.insert::<Headers>(Arc::new(headers));
            extensions.insert(permit.clone());
            let answering = self.routes.call(request);
            async {
                let answer = answering.await?;
                requests.answered(self.time_of(&answer));
                Ok(answer)
            }
        });
        self.speak_http(transport, service, &requests).await;
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

    /// Time for the client to take this answer, and to send the next request's head.
    fn time_of(&self, answer: &Response) -> Duration {
        let bytes = answer.body().size_hint().lower();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let taking = self.write_timeout.saturating_mul(write_timeouts(bytes));
        taking + self.request_head_timeout
    }

    async fn speak_http<S>(&self, transport: Transport, service: S, requests: &Requests)
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
        let mut stopped = None;
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|context| {
            loop {
                // An error is the client's: it sent no HTTP, or left.
                if connection.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                if let Some(end) = requests.end(stopped) {
                    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
                    if timer.deadline() != end {
                        timer.as_mut().reset(end);
                    }
                    if timer.as_mut().poll(context).is_ready() {
                        tracing::debug!(event = "connection_cut_off");
                        return Poll::Ready(());
                    }
                }
                if stopped.is_some() || !self.ends(requests.has_any()) {
                    return Poll::Pending;
                }
                stopped = Some(Instant::now());
                connection.as_mut().graceful_shutdown();
            }
        })
        .await;
    }
}

/// The requests of one connection.
#[derive(Debug, Default)]
struct Requests(Mutex<Last>);

/// What became of the last of them.
#[derive(Debug, Clone, Copy, Default)]
enum Last {
    /// There was none.
    #[default]
    None,
    /// It is being answered.
    Begun,
    /// Its answer was made.
    Answered {
        at: Instant,
        /// When the connection ends unless another request has come. hyper's timeout for a head begins when the answer before
        /// has been taken.
        end: Instant,
    },
}

impl Requests {
    fn begun(&self) {
        *self.lock() = Last::Begun;
    }

    fn answered(&self, within: Duration) {
        let at = Instant::now();
        let end = at + within;
        *self.lock() = Last::Answered { at, end };
    }

    fn has_any(&self) -> bool {
        !matches!(*self.lock(), Last::None)
    }

    /// When the connection ends, if it was told at this time that the server stops.
    fn end(&self, stopped: Option<Instant>) -> Option<Instant> {
        match *self.lock() {
            Last::None => stopped,
            Last::Begun => None,
            Last::Answered { at, end } => {
                Some(stopped.map_or(end, |stopped| end.min(stopped.max(at) + LAST_ANSWER)))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
