//! Every route, and the loop that accepts connections for them.
//!
//! warp's filters find the route; hyper serves them under our own accept loop, which bounds the time
//! for a request's head and the number of connections. WebSockets are upgraded by hand, so that a
//! connection costs a small buffer and not warp's large one. Knows no SQL. Every error is JSON,
//! `{"error":{"code","message"}}`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, Rejection};

use self::reply::{ApiError, exposition, json, reply, with_type};
use crate::barrier::Barriers;
use crate::connection::{Connection, Seat, Shared};
use crate::log::Log;
use crate::metrics::Rejected;
use crate::pending::{self, State};
use crate::router::Feed;
use crate::socket::Socket;
use crate::wire::Encoding;

mod reply;

/// What a client offers that wants frames with cursors, `hello` and `reset`.
const SUBPROTOCOL_V1: &str = "hushnet.v1";
/// Connections that wait in the kernel until they are accepted; the kernel admits no more than
/// `net.core.somaxconn`. One beyond that tries again after a second.
const ACCEPT_BACKLOG: i32 = 65_535;
/// Connections above `connections_max` for requests that are no WebSocket, such as `/metrics`, and
/// for telling the others that there is no place.
const REQUEST_CONNECTIONS_MAX: usize = 256;
/// The head of a request, in bytes: hyper's smallest buffer.
const REQUEST_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause after a failed accept: the usual cause, too many open files, does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What the kernel holds for a peer that does not read; left alone, it would grow to megabytes.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// A peer whose acknowledgements stay out this long is gone, whatever the WebSocket is doing.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// Where in the stream of events a state was read: the `since` to connect with.
const CURSOR_HEADER: &str = "realtime-cursor";
/// `true` when an answer has not all rows: acknowledge these and read again.
const MORE_HEADER: &str = "realtime-more";

/// A connection's place among all that may be open; free again when the last clone is dropped.
type Place = Arc<OwnedSemaphorePermit>;

/// What the routes serve from.
#[derive(Debug, Clone)]
pub struct Api {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Places for WebSockets.
    pub places: Arc<Semaphore>,
    /// Whether barriers commit.
    pub barriers: Arc<Barriers>,
    /// Every task that a request leaves behind.
    pub tasks: TaskTracker,
}

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
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and serves until stopped. Tasks are left in `api.tasks`.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    connections_max: usize,
    request_head_timeout: Duration,
) {
    let stop = api.shared.stop.clone();
    let tasks = api.tasks.clone();
    let places = Arc::new(Semaphore::new(connections_max + REQUEST_CONNECTIONS_MAX));
    let service = TowerToHyperService::new(warp::service(routes(&api)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(request_head_timeout)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error);
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let service = service.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&place));
            service.call(request)
        });
        let connection = http
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut connection = pin!(connection);
            // An error is the client's: it sent no HTTP, or left.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
}

/// The next connection, once there is a place for it; until then it waits in the kernel.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Place)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, Arc::new(place)))
}

/// The query of `/sessions/pending`.
#[derive(Debug, Deserialize)]
struct DeviceQuery {
    device_id: Option<String>,
}

/// The query of `/ws`.
#[derive(Debug, Deserialize)]
struct WsQuery {
    user_id: Option<String>,
    /// A cursor to go on from; whoever sends one is a v1 client.
    since: Option<String>,
}

/// All routes; whatever else is asked for is answered with 404.
fn routes(api: &Api) -> BoxedFilter<(Response,)> {
    let with_api = {
        let api = api.clone();
        warp::any().map(move || api.clone())
    };
    let upgrade = warp::header::headers_cloned()
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::get::<Place>())
        .map(|headers, stream, place| Upgrade {
            headers,
            stream,
            place,
        });
    let plain = warp::path!("ws")
        .and(warp::get())
        .and(with_api.clone())
        .and(warp::query::<WsQuery>())
        .and(upgrade)
        .map(|api: Api, query: WsQuery, upgrade| {
            reply(open(
                &api,
                query.user_id.as_deref(),
                query.since,
                Encoding::Plain,
                upgrade,
            ))
        });
    let envelope = warp::path!("ws" / String)
        .and(warp::get())
        .and(with_api.clone())
        .and(upgrade)
        .map(|user_id: String, api: Api, upgrade| {
            reply(open(
                &api,
                Some(&user_id),
                None,
                Encoding::Envelope,
                upgrade,
            ))
        });
    let metrics = warp::path!("metrics")
        .and(warp::get())
        .and(with_api.clone())
        .map(|api: Api| exposition(api.shared.metrics.render(api.shared.hub.users_connected())));
    let health = warp::path!("healthz")
        .and(warp::get())
        .map(|| json(StatusCode::OK, "alive"));
    let ready = warp::path!("readyz")
        .and(warp::get())
        .and(with_api)
        .map(|api: Api| {
            let live = matches!(*api.shared.feed.borrow(), Feed::Live(_));
            reply(match (live, api.barriers.is_uncommitted()) {
                (true, false) => Ok(json(StatusCode::OK, "ready")),
                (true, true) => Err(ApiError::BarrierUncommitted),
                (false, _) => Err(ApiError::ListenerDisconnected),
            })
        });
    plain
        .or(envelope)
        .unify()
        .or(metrics)
        .unify()
        .or(health)
        .unify()
        .or(ready)
        .unify()
        .or(state_routes(api))
        .unify()
        .recover(|rejection: Rejection| async move {
            Ok::<_, Infallible>(reply(Err(ApiError::from(&rejection))))
        })
        .unify()
        .boxed()
}

/// The reads of state that HushNet's client makes, each with the cursor to connect with.
fn state_routes(api: &Api) -> BoxedFilter<(Response,)> {
    let with_log = {
        let log = api.shared.log.clone();
        warp::any().map(move || log.clone())
    };
    let messages = warp::path!("messages" / "pending" / String)
        .and(warp::get())
        .and(with_log.clone())
        .then(|device_id: String, log: Log| async move {
            reply(match device_id.parse() {
                Ok(id) => state(pending::messages(&log.pool(), id).await),
                Err(_) => Err(ApiError::DeviceIdMalformed),
            })
        });
    let sessions = warp::path!("sessions" / "pending")
        .and(warp::get())
        .and(with_log.clone())
        .and(warp::query::<DeviceQuery>())
        .then(|log: Log, query: DeviceQuery| async move {
            reply(match query.device_id.as_deref().map(str::parse) {
                Some(Ok(id)) => state(pending::sessions(&log.pool(), id).await),
                Some(Err(_)) => Err(ApiError::DeviceIdMalformed),
                None => Err(ApiError::DeviceIdMissing),
            })
        });
    let devices = warp::path!("users" / String / "devices")
        .and(warp::get())
        .and(with_log)
        .then(|user_id: String, log: Log| async move {
            reply(match user_id.parse() {
                Ok(id) => state(pending::devices(&log.pool(), id).await),
                Err(_) => Err(ApiError::UserIdMalformed),
            })
        });
    messages.or(sessions).unify().or(devices).unify().boxed()
}

/// The answer to a read of state.
fn state(read: Result<State, sqlx::Error>) -> Result<Response, ApiError> {
    let state = read.map_err(|error| {
        tracing::warn!(event = "state_read_failed", %error);
        ApiError::DatabaseUnavailable
    })?;
    let mut response = with_type(state.body, "application/json");
    let headers = response.headers_mut();
    // The same address has another answer a moment later.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(cursor) = state
        .cursor
        .and_then(|text| HeaderValue::from_str(&text).ok())
    {
        headers.insert(CURSOR_HEADER, cursor);
    }
    if state.more {
        headers.insert(MORE_HEADER, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What a request for a WebSocket brings.
struct Upgrade {
    headers: HeaderMap,
    stream: Option<OnUpgrade>,
    place: Place,
}

/// Answers a request for a WebSocket with 101 and starts its connection, or says what is wrong.
fn open(
    api: &Api,
    user_id: Option<&str>,
    since: Option<String>,
    encoding: Encoding,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let metrics = &api.shared.metrics;
    let (user_id, accept_key, stream) = match check(user_id, &upgrade.headers, upgrade.stream) {
        Ok(checked) => checked,
        Err(error) => {
            metrics.connection_rejected(Rejected::BadRequest);
            return Err(error);
        }
    };
    let Ok(socket_place) = Arc::clone(&api.places).try_acquire_owned() else {
        metrics.connection_rejected(Rejected::ConnectionLimit);
        return Err(ApiError::TooManyConnections);
    };
    let offers_v1 = names(
        &upgrade.headers,
        &header::SEC_WEBSOCKET_PROTOCOL,
        SUBPROTOCOL_V1,
    );
    let encoding = if offers_v1 || since.is_some() {
        Encoding::V1
    } else {
        encoding
    };
    let seat = Seat::take(&api.shared, user_id, encoding, since);
    let shared = Arc::clone(&api.shared);
    api.tasks.spawn(async move {
        // Held until the connection is gone.
        let _places = (upgrade.place, socket_place);
        let Ok(upgraded) = stream.await else { return };
        let Ok(socket) = Socket::from_upgraded(upgraded, shared.frame_bytes_max).await else {
            return;
        };
        shared.metrics.connection_opened();
        let metrics = Arc::clone(&shared.metrics);
        let (connection, since) = Connection::new(shared, socket, seat);
        let closed = connection.run(since).await;
        metrics.connection_closed(closed);
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    if offers_v1 {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL_V1),
        );
    }
    Ok(response)
}

/// Whose events are asked for, the answer to the client's key, and the stream to come.
fn check(
    user_id: Option<&str>,
    headers: &HeaderMap,
    stream: Option<OnUpgrade>,
) -> Result<(Uuid, HeaderValue, OnUpgrade), ApiError> {
    let user_id = user_id.ok_or(ApiError::UserIdMissing)?;
    let user_id = user_id.parse().map_err(|_| ApiError::UserIdMalformed)?;
    let (Some(stream), true, true) = (
        stream,
        names(headers, &header::CONNECTION, "upgrade"),
        names(headers, &header::UPGRADE, "websocket"),
    ) else {
        return Err(ApiError::NotAWebSocket);
    };
    if !names(headers, &header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::WebSocketVersion);
    }
    // 16 bytes in base64 are 22 characters and two of padding.
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24 && key.as_bytes().ends_with(b"=="))
        .ok_or(ApiError::WebSocketKey)?;
    let accept_key = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| ApiError::WebSocketKey)?;
    Ok((user_id, accept_key, stream))
}

/// Whether a header that lists tokens names this one.
fn names(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .any(|listed| listed.trim().eq_ignore_ascii_case(token))
        })
}
