//! The loop that accepts connections: places, what comes before HTTP, and the time and size of a request's
//! head.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{Headers, Held, Peer, Place, proxied};
use crate::config::Networks;
use crate::limit::Limits;
use crate::metrics::{Metrics, Rejected};
use crate::tls::Tls;
use crate::transport::Transport;

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

/// Accepts and serves until stopped.
pub async fn serve(listener: TcpListener, routes: BoxedFilter<(Response,)>, accepting: Accepting) {
    let accepting = Arc::new(accepting);
    let places = accepting.connections_max + REQUEST_CONNECTIONS_MAX;
    let places = Arc::new(Semaphore::new(places));
    let service = TowerToHyperService::new(warp::service(routes));
    loop {
        let accepted = tokio::select! {
            () = accepting.stop.cancelled() => return,
            accepted = accepting.accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error);
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = service.clone();
        let serving = Arc::clone(&accepting);
        accepting.tasks.spawn(async move {
            let Some((transport, peer)) = serving.greeted(stream, peer).await else {
                return;
            };
            let service = service_fn(move |mut request: hyper::Request<Incoming>| {
                let headers = Arc::new(std::mem::take(request.headers_mut()));
                let extensions = request.extensions_mut();
                extensions.insert::<Headers>(headers);
                extensions.insert(Arc::clone(&place));
                extensions.insert(peer);
                service.call(request)
            });
            serving.speak_http(transport, service).await;
        });
    }
}

impl Accepting {
    /// The next connection, once there is a place for it; until then it waits in the kernel. `None` for
    /// one of an address that has too many: it is closed, since nobody knows yet what it speaks.
    async fn accept(
        &self,
        listener: &TcpListener,
        places: &Arc<Semaphore>,
    ) -> io::Result<Option<(TcpStream, Peer, Place)>> {
        let of_all = Arc::clone(places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        match self.limits.admit_peer(peer.ip()) {
            Ok(of_peer) => {
                let held = Held { of_all, of_peer };
                Ok(Some((stream, Peer(peer.ip()), Arc::new(held))))
            }
            Err(refusal) => {
                let reason = Rejected::Limit(refusal.limit);
                self.metrics.connection_rejected(reason);
                Ok(None)
            }
        }
    }

    /// The same in time; `None` for one that has no more to say.
    async fn greeted(&self, stream: TcpStream, peer: Peer) -> Option<(Transport, Peer)> {
        if !self.proxy_protocol && self.tls.is_none() {
            return Some((Transport::Plain(stream), peer));
        }
        // Boxed: a greeting with TLS is large, and most come without.
        let greeting = Box::pin(self.greet(stream, peer));
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(self.request_head_timeout, greeting) => greeted,
            () = self.stop.cancelled() => return None,
        };
        match greeted {
            Ok(Ok(greeted)) => Some(greeted),
            Ok(Err(error)) => {
                tracing::debug!(event = "greeting_failed", %error);
                None
            }
            Err(_) => None,
        }
    }

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
        // An error is the client's: it sent no HTTP, or left.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}
