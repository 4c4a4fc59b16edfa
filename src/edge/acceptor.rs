//! The loop that accepts connections. It bounds how many are open, in all and for each peer.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::connection_permit::Permits;
use super::http_server::{Accepted, Ending, HttpServer};
use super::listener::Listener;
use super::preamble::Preamble;
use super::round_robin::RoundRobin;
use super::tls::Tls;
use crate::config::Networks;
use crate::limits::Limits;
use crate::metrics::{Metrics, Rejected};

/// Connections beyond `connections_max`, at most: for requests that ask for no WebSocket, such as `/metrics`, and
/// for refusing further WebSockets with an answer.
pub(crate) const REQUEST_CONNECTIONS_MAX: usize = 256;
/// Pause after a failed accept: the usual cause, too many open files, does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Polls of connections between two returns to the runtime. Each return is a system call, and the longest
/// poll takes some tens of microseconds.
const POLLS_AT_ONCE: u32 = 8;
/// Connections that are accepted between two returns to the runtime. A client whose connection finds the
/// kernel's queue full tries again only after a second.
const ACCEPTS_AT_ONCE: u32 = 32;
/// Time for the first request of a connection that is open when the server stops. Shorter than the grace that requests
/// have at the end.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_millis(250);

/// How connections are accepted.
#[derive(Debug, Clone)]
pub struct Accepting {
    /// Connections that may be open, WebSockets and others.
    pub connections_max: usize,
    /// Time for a request's head, and the same again for what comes before HTTP.
    pub request_head_timeout: Duration,
    /// Time for the client to take an answer, and once more for each 256 KiB of it.
    pub write_timeout: Duration,
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
}

/// The tasks that accept and serve connections until stopped: one for each worker thread of the runtime.
pub fn acceptors(
    listener: Listener,
    routes: BoxedFilter<(Response,)>,
    accepting: Accepting,
) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
    let preamble = Preamble {
        proxy_protocol: accepting.proxy_protocol,
        trusted_proxies: accepting.trusted_proxies,
        tls: accepting.tls,
    };
    let (listener, limits) = (Arc::new(listener), accepting.limits);
    let acceptor = Arc::new(Acceptor {
        permits: Arc::new(Semaphore::new(accepting.connections_max)),
        server: Arc::new(HttpServer::new(
            TowerToHyperService::new(warp::service(routes)),
            preamble,
            (accepting.request_head_timeout, accepting.write_timeout),
            Arc::clone(&limits),
            Arc::clone(&accepting.metrics),
        )),
        limits,
        metrics: accepting.metrics,
        stop: accepting.stop,
    });
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    (0..workers).map(move |_| Arc::clone(&acceptor).run(Arc::clone(&listener)))
}

/// Accepts connections and has them served until they end or become WebSockets. Connections that have not
/// been upgraded share one task per worker ([`RoundRobin`]), which returns to the runtime after a few polls:
/// however many connect at once, an event waits for a few polls only.
struct Acceptor<R> {
    permits: Arc<Semaphore>,
    limits: Arc<Limits>,
    server: Arc<HttpServer<R>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl<R> Acceptor<R>
where
    R: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible>,
    R: Send + Sync + 'static,
    R::Future: Send,
{
    async fn run(self: Arc<Self>, listener: Arc<Listener>) {
        let mut connections = RoundRobin::new();
        let serve = |accepted| Arc::clone(&self.server).serve(accepted);
        let until_stopped = self.accept_until_stopped(&listener, &mut connections, serve);
        until_stopped.await;
        if !listener.is_shared() {
            self.accept_rest(&listener, &mut connections, serve);
        }
        drop(listener);
        for (which, time) in [
            (Ending::Served, FIRST_REQUEST),
            (Ending::All, Duration::MAX),
        ] {
            self.server.end(which);
            connections.wake_all();
            let _ = tokio::time::timeout(time, all_ended(&mut connections)).await;
        }
    }

    /// Accepts what still waits in the kernel's queue: closing the socket would reset it.
    fn accept_rest<F: Future<Output = ()>>(
        &self,
        listener: &Listener,
        connections: &mut RoundRobin<F>,
        serve: impl Fn(Accepted) -> F,
    ) {
        loop {
            match self.accept_waiting(listener) {
                Ok(accepted) => connections.extend(accepted.map(&serve)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client has left.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(event = "accept_failed", %error);
                    return;
                }
            }
        }
    }

    async fn accept_until_stopped<F: Future<Output = ()>>(
        &self,
        listener: &Listener,
        connections: &mut RoundRobin<F>,
        serve: impl Fn(Accepted) -> F,
    ) {
        let mut stop = pin!(self.stop.cancelled());
        let mut accept_from = None;
        let mut polls = 0;
        loop {
            tokio::select! {
                () = stop.as_mut() => return,
                polled = poll_fn(|context| connections.poll_woken(context, POLLS_AT_ONCE)) => polls += polled,
                accepted = self.accept(listener, accept_from) => {
                    let (mut next, mut left) = (Some(accepted), ACCEPTS_AT_ONCE);
                    while let Some(accepted) = next.take() {
                        match accepted {
                            Ok(accepted) => connections.extend(accepted.map(&serve)),
                            Err(error) => {
                                tracing::warn!(event = "accept_failed", %error);
                                accept_from = Some(Instant::now() + ACCEPT_RETRY);
                            }
                        }
                        left -= 1;
                        if left > 0 {
                            next = self.accept(listener, accept_from).now_or_never();
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

    /// The next connection, once there is a permit for it; until then it waits in the kernel. `None` for one that is
    /// not admitted.
    async fn accept(
        &self,
        listener: &Listener,
        from: Option<Instant>,
    ) -> io::Result<Option<Accepted>> {
        if let Some(from) = from {
            tokio::time::sleep_until(from).await;
        }
        let of_all = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        Ok(self.admit(stream, peer.ip(), of_all))
    }

    /// The next of those that wait in the kernel now, whether or not the runtime knows of it.
    fn accept_waiting(&self, listener: &Listener) -> io::Result<Option<Accepted>> {
        let of_all = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(io::Error::other)?;
        let (socket, peer) = listener.socket().accept()?;
        let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from_std(socket.into())?;
        Ok(self.admit(stream, peer.ip(), of_all))
    }

    /// `None` for a connection of an address that has too many: it is closed without an answer, since it may speak TLS.
    fn admit(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        of_all: OwnedSemaphorePermit,
    ) -> Option<Accepted> {
        match self.limits.admit_peer(peer) {
            Ok(of_peer) => Some(Accepted {
                stream,
                peer,
                permits: Permits {
                    all: of_all,
                    peer: of_peer,
                    client: None,
                },
            }),
            Err(refusal) => {
                let reason = Rejected::Limit(refusal.limit);
                self.metrics.connections_rejected.increment(reason);
                None
            }
        }
    }
}

async fn all_ended(connections: &mut RoundRobin<impl Future<Output = ()>>) {
    while !connections.is_empty() {
        poll_fn(|context| connections.poll_woken(context, POLLS_AT_ONCE)).await;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use warp::Filter;

    use super::*;
    use crate::config::Config;
    use crate::edge::{ClientAddress, ConnectionPermit, Headers, adopt, bind};

    const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
    const WRITE_TIMEOUT: Duration = Duration::from_millis(10);
    /// More than the kernel takes of an answer for a client that does not read.
    const LARGE: usize = 32 << 20;

    /// A server of three routes: `/panic` panics, `/client` answers with the client's address and the header `x-name`, and
    /// `/large` with many bytes.
    struct Server {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Server {
        fn start() -> Self {
            Self::with(HEAD_TIMEOUT)
        }

        fn with(request_head_timeout: Duration) -> Self {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            Self::on(listener, request_head_timeout)
        }

        fn on(listener: Listener, request_head_timeout: Duration) -> Self {
            let panics = warp::path!("panic").map(|| -> Response { panic!("on purpose") });
            let client = warp::path!("client")
                .and(warp::ext::get::<Headers>())
                .and(warp::ext::get::<ClientAddress>())
                .and(warp::ext::get::<ConnectionPermit>())
                .map(|headers: Headers, ClientAddress(address), _| {
                    let name = headers["x-name"].to_str().unwrap();
                    Response::new(format!("{address} {name}").into())
                });
            let large = warp::path!("large").map(|| Response::new(vec![0; LARGE].into()));
            let limits = Config::default().limits;
            let accepting = Accepting {
                connections_max: 10,
                request_head_timeout,
                write_timeout: WRITE_TIMEOUT,
                proxy_protocol: false,
                trusted_proxies: "127.0.0.0/8".parse().unwrap(),
                tls: None,
                limits: Arc::new(Limits::new(&limits, 4)),
                metrics: Arc::new(Metrics::new()),
                stop: CancellationToken::new(),
            };
            let address = listener.local_addr().unwrap();
            let (metrics, stop) = (Arc::clone(&accepting.metrics), accepting.stop.clone());
            let routes = panics.or(client).unify().or(large).unify().boxed();
            let task = tokio::spawn(acceptors(listener, routes, accepting).next().unwrap());
            Self {
                address,
                metrics,
                stop,
                task,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// A connection that has sent this request.
        async fn asks(&self, path: &str) -> TcpStream {
            let mut stream = self.connect().await;
            stream.write_all(request(path).as_bytes()).await.unwrap();
            stream
        }

        /// A connection without a request, which the server has accepted: it has answered one that came after it.
        async fn accepted(&self) -> TcpStream {
            let stream = self.connect().await;
            let response = ask(&mut self.connect().await, "/client").await;
            assert!(response.ends_with("me"), "{response}");
            stream
        }
    }

    fn request(path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nX-Name: me\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
        )
    }

    /// Sends a request; returns its response, which is empty if the server closes the connection.
    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        stream.write_all(request(path).as_bytes()).await.unwrap();
        let mut response = vec![0; 1_024];
        let length = stream.read(&mut response).await.unwrap_or(0);
        String::from_utf8_lossy(&response[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_panic_ends_its_connection_and_no_other() {
        let server = Server::start();
        let (mut one, mut other) = (server.connect().await, server.connect().await);
        assert!(ask(&mut other, "/client").await.starts_with("HTTP/1.1 200"));
        assert_eq!(ask(&mut one, "/panic").await, "");
        assert!(ask(&mut other, "/client").await.starts_with("HTTP/1.1 200"));
        let text = server.metrics.render(0);
        let counted = "hushnet_panics_total{where=\"request\"} 1";
        assert!(text.lines().any(|line| line == counted), "{text}");
    }

    #[tokio::test]
    async fn a_request_has_its_headers_and_the_address_that_a_trusted_proxy_names() {
        let server = Server::start();
        let response = ask(&mut server.connect().await, "/client").await;
        assert!(response.ends_with("\r\n\r\n192.0.2.7 me"), "{response}");
    }

    /// Whatever it takes puts the kernel's timeout off.
    #[tokio::test]
    async fn a_client_that_takes_its_answer_too_slowly_is_cut_off() {
        let head_timeout = Duration::from_secs(2);
        let server = Server::with(head_timeout);
        let mut slow = server.asks("/large").await;
        let (begun, mut taken) = (Instant::now(), 0);
        let mut bytes = vec![0; 16 << 10];
        while let Ok(length @ 1..) = slow.read(&mut bytes).await {
            taken += length;
            if begun.elapsed() < head_timeout * 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(taken < LARGE, "it has taken all of it");
    }

    /// The test's one thread connects and asks before the server runs again.
    #[tokio::test]
    async fn a_connection_that_waits_in_the_kernel_at_the_stop_is_answered() {
        let server = Server::start();
        server.accepted().await;
        let mut waiting = std::net::TcpStream::connect(server.address).unwrap();
        std::io::Write::write_all(&mut waiting, request("/client").as_bytes()).unwrap();
        server.stop.cancel();
        server.task.await.unwrap();
        let response = std::io::read_to_string(waiting).unwrap();
        assert!(response.ends_with("me"), "{response}");
    }

    #[tokio::test]
    async fn a_connection_that_waits_at_the_stop_is_left_to_another_process_that_has_the_socket() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = adopt(other.try_clone().unwrap()).unwrap();
        let server = Server::on(listener, HEAD_TIMEOUT);
        server.accepted().await;
        let waiting = std::net::TcpStream::connect(server.address).unwrap();
        server.stop.cancel();
        server.task.await.unwrap();
        let (_, peer) = other.accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_first_request_that_comes_just_after_the_stop_is_answered() {
        let server = Server::start();
        let mut open = server.accepted().await;
        server.stop.cancel();
        tokio::task::yield_now().await;
        assert!(ask(&mut open, "/client").await.ends_with("me"));
        server.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_closed_a_moment_after_the_stop() {
        let server = Server::start();
        let mut open = server.accepted().await;
        let stopped = Instant::now();
        server.stop.cancel();
        server.task.await.unwrap();
        assert!(stopped.elapsed() >= FIRST_REQUEST);
        assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn half_a_request_and_an_answer_that_is_not_taken_do_not_hold_a_stop() {
        let server = Server::start();
        let mut half = server.accepted().await;
        half.write_all(b"GET /client HT").await.unwrap();
        let mut again = server.connect().await;
        ask(&mut again, "/client").await;
        again.write_all(b"GET /client HT").await.unwrap();
        let unread = server.asks("/large").await;
        unread.readable().await.unwrap();
        let stopped = Instant::now();
        server.stop.cancel();
        server.task.await.unwrap();
        assert!(
            stopped.elapsed() < HEAD_TIMEOUT / 2,
            "{:?}",
            stopped.elapsed()
        );
    }

    #[tokio::test]
    async fn a_stopped_server_ends_its_idle_connections() {
        let server = Server::start();
        let mut idle = server.connect().await;
        assert!(ask(&mut idle, "/client").await.starts_with("HTTP/1.1 200"));
        server.stop.cancel();
        server.task.await.unwrap();
        assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
