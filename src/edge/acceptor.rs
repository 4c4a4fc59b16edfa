//! The loop that accepts connections and serves their requests until they end or become WebSockets. It bounds
//! how many connections are open, and the time and size of a request's head.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::reply::Response;

use super::client_address::ClientAddress;
use super::connection_permit::ConnectionPermit;
use super::preamble::Preamble;
use super::round_robin::RoundRobin;
use super::tls::Tls;
use super::transport::Transport;
use crate::config::Networks;
use crate::limits::Limits;
use crate::metrics::{Metrics, Rejected};

/// Connections beyond `connections_max`: for requests that ask for no WebSocket, such as `/metrics`, and for
/// refusing further WebSockets with an answer.
pub(crate) const REQUEST_CONNECTIONS_MAX: usize = 256;
/// The head of a request, in bytes: hyper's smallest buffer.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause after a failed accept: the usual cause, too many open files, does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Polls of connections between two returns to the runtime. Each return is a system call, and the longest
/// poll takes some tens of microseconds.
const POLLS_AT_ONCE: u32 = 8;
/// Connections that are accepted between two returns to the runtime. A client whose connection finds the
/// kernel's queue full tries again only after a second.
const ACCEPTS_AT_ONCE: u32 = 32;

/// A request's headers. They are taken out of the request and shared by the filters: a clone of them costs
/// more than finding the route.
pub(crate) type Headers = Arc<HeaderMap>;

/// How connections are accepted.
#[derive(Debug, Clone)]
pub struct Accepting {
    /// WebSockets that may be open.
    pub connections_max: usize,
    /// Time for a request's head, and the same again for what comes before HTTP.
    pub request_head_timeout: Duration,
    /// Whether trusted proxies begin each connection with the PROXY protocol's header.
    pub proxy_protocol: bool,
    /// The proxies that may name the client which they forward.
    pub trusted_proxies: Networks,
    /// The certificate to serve TLS with.
    pub tls: Option<Arc<Tls>>,
    /// How many connections of one address may be open.
    pub limits: Arc<Limits>,
    /// Where refused connections and panics are counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when no more connections are to be accepted.
    pub stop: CancellationToken,
    /// The tasks that serve connections which are not WebSockets yet.
    pub tasks: TaskTracker,
}

/// Accepts and serves connections until stopped, with one task for each worker thread of the runtime.
pub async fn serve(listener: TcpListener, routes: BoxedFilter<(Response,)>, accepting: Accepting) {
    let connections_max = accepting.connections_max + REQUEST_CONNECTIONS_MAX;
    let tasks = accepting.tasks;
    let acceptor = Arc::new(Acceptor {
        listener,
        routes: TowerToHyperService::new(warp::service(routes)),
        permits: Arc::new(Semaphore::new(connections_max)),
        request_head_timeout: accepting.request_head_timeout,
        preamble: Preamble {
            proxy_protocol: accepting.proxy_protocol,
            trusted_proxies: accepting.trusted_proxies,
            tls: accepting.tls,
        },
        limits: accepting.limits,
        metrics: accepting.metrics,
        stop: accepting.stop,
        stopping: AtomicBool::new(false),
    });
    for _ in 1..tokio::runtime::Handle::current().metrics().num_workers() {
        tasks.spawn(Arc::clone(&acceptor).run());
    }
    acceptor.run().await;
}

/// Accepts connections and serves them until they end or become WebSockets. Connections that have not been
/// upgraded share one task per worker ([`RoundRobin`]), which returns to the runtime after a few polls:
/// however many connect at once, an event waits for a few polls only.
struct Acceptor<R> {
    listener: TcpListener,
    routes: R,
    permits: Arc<Semaphore>,
    request_head_timeout: Duration,
    preamble: Preamble,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// Whether connections are to end after their current request.
    stopping: AtomicBool,
}

/// A connection that has been accepted.
struct Accepted {
    stream: TcpStream,
    peer: IpAddr,
    permit: ConnectionPermit,
}

impl<R> Acceptor<R>
where
    R: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible>,
    R: Send + Sync + 'static,
    R::Future: Send,
{
    async fn run(self: Arc<Self>) {
        let mut connections = RoundRobin::new();
        let mut stop = pin!(self.stop.cancelled());
        let mut stopping = false;
        let mut accept_from = None;
        let mut polls = 0;
        while !(stopping && connections.is_empty()) {
            tokio::select! {
                () = stop.as_mut(), if !stopping => {
                    stopping = true;
                    self.stopping.store(true, Release);
                    connections.wake_all();
                }
                polled = poll_fn(|context| connections.poll_woken(context, POLLS_AT_ONCE)) => polls += polled,
                accepted = self.accept(accept_from), if !stopping => {
                    let (mut next, mut left) = (Some(accepted), ACCEPTS_AT_ONCE);
                    while let Some(accepted) = next.take() {
                        match accepted {
                            Ok(Some(accepted)) => connections.push(Arc::clone(&self).receive(accepted)),
                            Ok(None) => {}
                            Err(error) => {
                                tracing::warn!(event = "accept_failed", %error);
                                accept_from = Some(Instant::now() + ACCEPT_RETRY);
                            }
                        }
                        left -= 1;
                        if left > 0 {
                            next = self.accept(accept_from).now_or_never();
                        }
                    }
                    polls += 1;
                }
            }
            if polls >= POLLS_AT_ONCE {
                polls = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// The next connection, once there is a permit for it; until then it waits in the kernel. `None` for a
    /// connection of an address that has too many: it is closed without an answer, since it may speak TLS.
    async fn accept(&self, from: Option<Instant>) -> io::Result<Option<Accepted>> {
        if let Some(from) = from {
            tokio::time::sleep_until(from).await;
        }
        let of_all = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        let peer = peer.ip();
        match self.limits.admit_peer(peer) {
            Ok(of_peer) => Ok(Some(Accepted {
                stream,
                peer,
                permit: ConnectionPermit::new(of_all, of_peer),
            })),
            Err(refusal) => {
                let reason = Rejected::Limit(refusal.limit);
                self.metrics.connection_rejected(reason);
                Ok(None)
            }
        }
    }

    /// Serves a connection. A panic ends this connection and no other.
    async fn receive(self: Arc<Self>, accepted: Accepted) {
        let peer = accepted.peer;
        let serving = AssertUnwindSafe(self.serve(accepted)).catch_unwind();
        if let Err(panic) = serving.await {
            let message = panic_message(&*panic);
            tracing::error!(event = "request_panicked", %peer, message);
        }
    }

    /// Serves a connection from its first byte until it has become a WebSocket, or ended.
    async fn serve(&self, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            permit,
        } = accepted;
        let Some((transport, peer)) = self.read_preamble(stream, peer).await else {
            return;
        };
        let trusted = &self.preamble.trusted_proxies;
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let headers = std::mem::take(request.headers_mut());
            let extensions = request.extensions_mut();
            extensions.insert(ClientAddress::of(peer, &headers, trusted));
            extensions.insert::<Headers>(Arc::new(headers));
            extensions.insert(permit.clone());
            self.routes.call(request)
        });
        self.speak_http(transport, service).await;
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
        let read = poll_fn(|context| {
            if self.is_stopping() {
                return Poll::Ready(None);
            }
            reading.as_mut().poll(context).map(Some)
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

    async fn speak_http<S>(&self, transport: Transport, service: S)
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
            if self.is_stopping() && !shutting_down {
                shutting_down = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await;
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
