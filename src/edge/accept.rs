//! The loop that accepts connections: places, what comes before HTTP, and the time and size of a request's
//! head.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
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
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::in_turn::InTurn;
use super::peer::{Headers, Held, Peer, Place};
use super::proxy_protocol as proxied;
use crate::config::Networks;
use crate::edge::{Tls, Transport};
use crate::limits::Limits;
use crate::metrics::{Metrics, Rejected};

/// Connections that wait in the kernel until they are accepted; the kernel admits no more than
/// `net.core.somaxconn`. One beyond that tries again after a second.
const ACCEPT_BACKLOG: i32 = 65_535;
/// Connections above `connections_max` for requests that are no WebSocket, such as `/metrics`, and
/// for telling the others that there is no place.
pub(crate) const REQUEST_CONNECTIONS_MAX: usize = 256;
/// The head of a request, in bytes: hyper's smallest buffer.
pub(crate) const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause after a failed accept: the usual cause, too many open files, does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Steps of those at the door between two looks at what has happened elsewhere: each look is a system call,
/// and the longest step some tens of microseconds.
const STEPS_AT_ONCE: u32 = 8;
/// Connections that are accepted at once: that is quick, and whom the kernel has no place for comes again a
/// second later.
const ACCEPTED_AT_ONCE: u32 = 32;
/// What the kernel holds for a peer that does not read; left alone, it would grow to megabytes.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// A peer whose acknowledgements stay out this long is gone, whatever the WebSocket is doing.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// A listening socket whose connections inherit what they need: no delay for small frames, and an
/// end for peers that are gone.
///
/// # Errors
/// The operating system's, such as an address in use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    adopt(socket.into())
}

/// The same from a socket that listens already.
///
/// # Errors
/// The operating system's.
pub fn adopt(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    let options = SockRef::from(&socket);
    options.set_nonblocking(true)?;
    options.set_tcp_nodelay(true)?;
    options.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    TcpListener::from_std(socket)
}

/// How connections are accepted.
#[derive(Debug, Clone)]
pub struct Accepting {
    /// WebSockets that may be open.
    pub connections_max: usize,
    /// Time for a request's head, and before it for what comes before HTTP.
    pub request_head_timeout: Duration,
    /// Whether trusted proxies say first for whom they come.
    pub proxy_protocol: bool,
    /// Who those are.
    pub trusted_proxies: Networks,
    /// What greets a connection first, if TLS is served.
    pub tls: Option<Arc<Tls>>,
    /// How many of one address may be open.
    pub limits: Arc<Limits>,
    /// Where the others are counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when no more are to be accepted.
    pub stop: CancellationToken,
    /// Where connections are left that are no WebSocket yet.
    pub tasks: TaskTracker,
}

/// Accepts and serves until stopped, with as many [`Door`]s as the runtime has threads.
pub async fn serve(listener: TcpListener, routes: BoxedFilter<(Response,)>, accepting: Accepting) {
    let places = accepting.connections_max + REQUEST_CONNECTIONS_MAX;
    let tasks = accepting.tasks.clone();
    let door = Arc::new(Door {
        listener,
        routes: TowerToHyperService::new(warp::service(routes)),
        places: Arc::new(Semaphore::new(places)),
        stopping: AtomicBool::new(false),
        accepting,
    });
    for _ in 1..tokio::runtime::Handle::current().metrics().num_workers() {
        tasks.spawn(Arc::clone(&door).attend());
    }
    door.attend().await;
}

/// Where connections come in. Until one is a WebSocket it is attended to here, a step of one at a time
/// between those of everyone inside ([`InTurn`]): however many come at once, an event waits for a few
/// steps.
struct Door<R> {
    listener: TcpListener,
    routes: R,
    places: Arc<Semaphore>,
    /// Whether those that are at the door are to end.
    stopping: AtomicBool,
    accepting: Accepting,
}

impl<R> Door<R>
where
    R: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible>,
    R: Send + Sync + 'static,
    R::Future: Send,
{
    async fn attend(self: Arc<Self>) {
        let mut callers = InTurn::new();
        let mut stop = pin!(self.accepting.stop.cancelled());
        let mut stopping = false;
        let mut accept_from = None;
        let mut steps = 0;
        while !(stopping && callers.is_empty()) {
            tokio::select! {
                () = stop.as_mut(), if !stopping => {
                    stopping = true;
                    self.stopping.store(true, Release);
                    callers.wake_all();
                }
                taken = poll_fn(|context| callers.poll_steps(context, STEPS_AT_ONCE)) => steps += taken,
                accepted = self.accept(accept_from), if !stopping => {
                    let (mut next, mut left) = (Some(accepted), ACCEPTED_AT_ONCE);
                    while let Some(accepted) = next.take() {
                        match accepted {
                            Ok(Some((stream, peer, place))) => {
                                callers.push(Arc::clone(&self).receive(stream, peer, place));
                            }
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
                    steps += 1;
                }
            }
            if steps >= STEPS_AT_ONCE {
                steps = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// The next connection, once there is a place for it; until then it waits in the kernel. `None` for
    /// one of an address that has too many: it is closed, since nobody knows yet what it speaks.
    async fn accept(&self, from: Option<Instant>) -> io::Result<Option<(TcpStream, Peer, Place)>> {
        if let Some(from) = from {
            tokio::time::sleep_until(from).await;
        }
        let of_all = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        match self.accepting.limits.admit_peer(peer.ip()) {
            Ok(of_peer) => {
                let held = Held { of_all, of_peer };
                Ok(Some((stream, Peer(peer.ip()), Arc::new(held))))
            }
            Err(refusal) => {
                let reason = Rejected::Limit(refusal.limit);
                self.accepting.metrics.connection_rejected(reason);
                Ok(None)
            }
        }
    }

    /// A connection from its first byte until it has become a WebSocket, or ended.
    async fn receive(self: Arc<Self>, stream: TcpStream, peer: Peer, place: Place) {
        let Some((transport, peer)) = self.greeted(stream, peer).await else {
            return;
        };
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let headers = Arc::new(std::mem::take(request.headers_mut()));
            let extensions = request.extensions_mut();
            extensions.insert::<Headers>(headers);
            extensions.insert(Arc::clone(&place));
            extensions.insert(peer);
            self.routes.call(request)
        });
        self.speak_http(transport, service).await;
    }

    /// The same in time; `None` for one that has no more to say.
    async fn greeted(&self, stream: TcpStream, peer: Peer) -> Option<(Transport, Peer)> {
        let accepting = &self.accepting;
        if !accepting.proxy_protocol && accepting.tls.is_none() {
            return Some((Transport::Plain(stream), peer));
        }
        // Boxed: a greeting with TLS is large, and most come without.
        let greeting = Box::pin(accepting.greet(stream, peer));
        let mut greeting = pin!(tokio::time::timeout(
            accepting.request_head_timeout,
            greeting
        ));
        let greeted = poll_fn(|context| {
            if self.is_stopping() {
                return Poll::Ready(None);
            }
            greeting.as_mut().poll(context).map(Some)
        });
        match greeted.await? {
            Ok(Ok(greeted)) => Some(greeted),
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
            .header_read_timeout(self.accepting.request_head_timeout)
            .max_buf_size(REQUEST_HEAD_BYTES_MAX);
        let connection = http
            .serve_connection(TokioIo::new(transport), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut told = false;
        // An error is the client's: it sent no HTTP, or left.
        let _ = poll_fn(|context| {
            if self.is_stopping() && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        })
        .await;
    }
}

impl Accepting {
    /// What comes before HTTP: whom a proxy comes for, and TLS.
    async fn greet(&self, mut stream: TcpStream, peer: Peer) -> io::Result<(Transport, Peer)> {
        let Peer(address) = peer;
        let client = if self.proxy_protocol && self.trusted_proxies.contain(address) {
            proxied::read_header(&mut stream).await?
        } else {
            None
        };
        let transport = match &self.tls {
            Some(tls) => Transport::Tls(Box::new(tls.acceptor().accept(stream).await?)),
            None => Transport::Plain(stream),
        };
        Ok((transport, client.map_or(peer, Peer)))
    }
}
