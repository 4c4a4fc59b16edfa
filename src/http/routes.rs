//! Every route, and the loop that accepts connections for them (`accept`).
//!
//! warp's filters find the route; hyper serves them under our own accept loop, which bounds the time
//! for a request's head and the number of connections. WebSockets are upgraded by hand, so that a
//! connection costs a small buffer and not warp's large one. Knows no SQL. Every error is JSON,
//! `{"error":{"code","message"}}`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::upgrade::OnUpgrade;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::api::{Api, with_api};
use super::reply::{ApiError, exposition, json, reply, with_type};
use super::upgrade::{self, Upgrade, WsQuery};
use super::{console, credentials, origin};
use crate::connection::Shared;
use crate::edge::{Headers, Peer, Place, client_address};
use crate::identity::Credentials;
use crate::protocol::{AuthError, Encoding};
use crate::store::state::{self, State};

/// Where in the stream of events a state was read: the `since` to connect with.
const CURSOR_HEADER: &str = "realtime-cursor";
/// `true` when an answer has not all rows: acknowledge these and read again.
const MORE_HEADER: &str = "realtime-more";

/// The query of `/sessions/pending`.
#[derive(Debug, Deserialize)]
struct DeviceQuery {
    device_id: Option<String>,
}

/// What the service answers to clients, and to operators unless they have an address of their own;
/// whatever else is asked for is answered with 404.
#[must_use]
pub fn routes(api: &Api, with_metrics: bool) -> BoxedFilter<(Response,)> {
    let clients = sockets(api)
        .or(state_routes(api))
        .unify()
        .or(probes(api))
        .unify();
    let mut all = clients.boxed();
    if with_metrics {
        all = all.or(metrics(api)).unify().boxed();
    }
    if let Some(console) = api.console {
        all = all.or(console::routes(api, console)).unify().boxed();
    }
    let origins = Arc::new(api.origins.clone());
    let preflight = warp::method().and(warp::ext::get::<Headers>()).and_then(
        |method, asked: Headers| async move {
            if origin::is_preflight(&method, &asked) {
                Ok(origin::preflight())
            } else {
                Err(warp::reject())
            }
        },
    );
    warp::ext::get::<Headers>()
        .and(answered(all.or(preflight).unify().boxed()))
        .map(move |asked: Headers, response| origin::mark(&origins, &asked, response))
        .boxed()
}

/// What the service answers to operators at an address of their own.
#[must_use]
pub fn operator_routes(api: &Api) -> BoxedFilter<(Response,)> {
    answered(metrics(api).or(probes(api)).unify().boxed())
}

/// With an answer of our own for what no route takes.
fn answered(routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    routes
        .recover(|rejection: Rejection| async move {
            Ok::<_, Infallible>(reply(Err(ApiError::from(&rejection))))
        })
        .unify()
        .boxed()
}

fn sockets(api: &Api) -> BoxedFilter<(Response,)> {
    let upgrade = warp::ext::get::<Headers>()
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::get::<Place>())
        .and(warp::ext::get::<Peer>())
        .map(|headers, stream, place, peer| Upgrade {
            headers,
            stream,
            place,
            peer,
        });
    let plain = warp::path!("ws")
        .and(warp::get())
        .and(with_api(api))
        .and(warp::query::<WsQuery>())
        .and(upgrade)
        .then(|api: Arc<Api>, query: WsQuery, upgrade| async move {
            reply(upgrade::open(api, query, Encoding::Plain, upgrade).await)
        });
    let envelope = warp::path!("ws" / String)
        .and(warp::get())
        .and(with_api(api))
        .and(upgrade)
        .then(|user_id: String, api: Arc<Api>, upgrade| async move {
            let query = WsQuery::of_user(user_id);
            reply(upgrade::open(api, query, Encoding::Envelope, upgrade).await)
        });
    plain.or(envelope).unify().boxed()
}

fn metrics(api: &Api) -> BoxedFilter<(Response,)> {
    warp::path!("metrics")
        .and(warp::get())
        .and(with_api(api))
        .map(|api: Arc<Api>| {
            exposition(api.shared.metrics.render(api.shared.hub.users_connected()))
        })
        .boxed()
}

/// Whether the process lives, and whether events come.
fn probes(api: &Api) -> BoxedFilter<(Response,)> {
    let health = warp::path!("healthz")
        .and(warp::get())
        .map(|| json(StatusCode::OK, "alive"));
    let ready = warp::path!("readyz")
        .and(warp::get())
        .and(with_api(api))
        .map(|api: Arc<Api>| {
            let feed = api.shared.feed.borrow();
            let (live, uncommitted) = (feed.is_live(), feed.is_uncommitted());
            drop(feed);
            if api.shared.drain.has_begun() {
                return reply(Err(ApiError::Draining));
            }
            reply(match (live, uncommitted) {
                (true, false) => Ok(json(StatusCode::OK, "ready")),
                (true, true) => Err(ApiError::BarrierUncommitted),
                (false, _) => Err(ApiError::ListenerDisconnected),
            })
        });
    health.or(ready).unify().boxed()
}

/// The reads of state that HushNet's client makes, each with the cursor to connect with. Where clients
/// have to prove who they are, a device reads only its own.
fn state_routes(api: &Api) -> BoxedFilter<(Response,)> {
    let with_reader = {
        let api = api.clone();
        warp::ext::get::<Headers>()
            .and(warp::ext::get::<Peer>())
            .map(move |headers: Headers, peer| Reader {
                shared: Arc::clone(&api.shared),
                answers: Arc::clone(&api.answers),
                credentials: credentials::in_headers(&headers),
                address: client_address(peer, &headers, &api.trusted_proxies),
            })
    };
    let messages = warp::path!("messages" / "pending" / String)
        .and(warp::get())
        .and(with_reader.clone())
        .then(|device_id: String, reader: Reader| async move {
            reply(reader.messages(&device_id).await)
        });
    let sessions = warp::path!("sessions" / "pending")
        .and(warp::get())
        .and(with_reader.clone())
        .and(warp::query::<DeviceQuery>())
        .then(|reader: Reader, query: DeviceQuery| async move {
            reply(reader.sessions(query.device_id.as_deref()).await)
        });
    let devices = warp::path!("users" / String / "devices")
        .and(warp::get())
        .and(with_reader)
        .then(
            |user_id: String, reader: Reader| async move { reply(reader.devices(&user_id).await) },
        );
    messages.or(sessions).unify().or(devices).unify().boxed()
}

/// Who asks for state.
struct Reader {
    shared: Arc<Shared>,
    answers: Arc<Semaphore>,
    credentials: Credentials,
    address: IpAddr,
}

impl Reader {
    async fn messages(self, device_id: &str) -> Result<Response, ApiError> {
        let id = device_id.parse().map_err(|_| ApiError::DeviceIdMalformed)?;
        self.check_device(id).await?;
        let place = self.place().await?;
        state(
            state::messages(&self.shared.log.requests(), id).await,
            place,
        )
    }

    async fn sessions(self, device_id: Option<&str>) -> Result<Response, ApiError> {
        let id = device_id.ok_or(ApiError::DeviceIdMissing)?;
        let id = id.parse().map_err(|_| ApiError::DeviceIdMalformed)?;
        self.check_device(id).await?;
        let place = self.place().await?;
        state(
            state::sessions(&self.shared.log.requests(), id).await,
            place,
        )
    }

    async fn devices(self, user_id: &str) -> Result<Response, ApiError> {
        let id = user_id.parse().map_err(|_| ApiError::UserIdMalformed)?;
        self.check_rate()?;
        let auth = &self.shared.auth;
        let identity = auth.identify(&self.credentials, Some(id), None).await;
        let checked = match identity {
            Ok(Some(identity)) => auth.confirm(&identity).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        checked.map_err(|error| self.refused(error))?;
        let place = self.place().await?;
        state(state::devices(&self.shared.log.requests(), id).await, place)
    }

    /// A place for the answer, before there is one.
    async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.answers).acquire_owned();
        match tokio::time::timeout(state::READ_TIMEOUT, place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(ApiError::DatabaseUnavailable),
        }
    }

    /// Before anything that costs a query.
    fn check_rate(&self) -> Result<(), ApiError> {
        let admitted = self.shared.limits.admit_request(self.address);
        admitted.map_err(ApiError::Limited)
    }

    async fn check_device(&self, device_id: Uuid) -> Result<(), ApiError> {
        self.check_rate()?;
        let auth = &self.shared.auth;
        let identity = auth
            .identify(&self.credentials, None, Some(device_id))
            .await;
        let checked = match identity {
            Ok(Some(identity)) => auth.may_read(&identity, device_id).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        checked.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: AuthError) -> ApiError {
        self.shared.metrics.identity_refused(error);
        ApiError::Identity(error)
    }
}

/// State on its way to a client, and its place.
struct Answer(
    String,
    #[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
);

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The answer to a read of state.
fn state(
    read: Result<State, sqlx::Error>,
    place: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let state = read.map_err(|error| {
        tracing::warn!(event = "state_read_failed", %error);
        ApiError::DatabaseUnavailable
    })?;
    let body = Bytes::from_owner(Answer(state.body, place));
    let mut response = with_type(body, "application/json");
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
