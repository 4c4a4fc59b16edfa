//! From a request for a WebSocket to its connection.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use hushnet_websocket::Socket;
use hyper::upgrade::OnUpgrade;
use serde::Deserialize;
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::admission::{Admission, SocketPermits};
use super::api::Api;
use super::credentials::{self, ProofQuery};
use super::error::ApiError;
use super::handshake::Handshake;
use super::reply::reply;
use super::request::{RequestHead, decoded, get_or_head, head, is_head, wanted_kinds, with};
use crate::connection::{self, Connection, PendingConnection, Shared, Since};
use crate::edge::{ConnectionPermit, Transport};
use crate::identity::Identity;
use crate::limits::Permit;
use crate::metrics::{Panicked, panic_message};
use crate::protocol::{
    AuthError, CloseCode, Closed, Encoding, Recipient, UserKey, UserType, WantedKinds,
};

/// The query of `/ws`.
#[derive(Debug, Default, Deserialize)]
struct WsQuery {
    user_id: Option<String>,
    /// The cursor to resume from. A client that sends one speaks v1.
    since: Option<String>,
    /// The kinds of events that the client asks for, with commas between.
    kinds: Option<String>,
    #[serde(flatten)]
    proof: ProofQuery,
}

/// The query of `/ws/{user_id}`.
#[derive(Debug, Deserialize)]
struct EnvelopeQuery {
    kinds: Option<String>,
}

/// In the place of an id that is no UTF-8.
const NOBODY: &str = "";

/// A request for a WebSocket, without its query.
struct UpgradeRequest {
    head: RequestHead,
    permit: ConnectionPermit,
    stream: Option<OnUpgrade>,
}

/// Opens WebSockets.
#[derive(Debug)]
pub(super) struct Upgrades {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    token_in_query: bool,
    tasks: TaskTracker,
}

/// A request that may become a WebSocket, before its user is known.
struct Upgradable {
    handshake: Handshake,
    permits: SocketPermits,
}

/// How a client asks for its events.
struct Asked {
    kinds: Option<Arc<WantedKinds>>,
    encoding: Encoding,
    since: Option<Since>,
    /// The type of users before the client's user was read.
    user_type: UserType,
}

/// What an open WebSocket holds.
type Permits = (SocketPermits, Permit<UserKey>);

/// A WebSocket that opens when the handshake's response has been sent. Boxed, since it is large, and an open
/// connection does not need it.
struct Opening {
    shared: Arc<Shared>,
    handshake: Handshake,
    pending: PendingConnection,
    permits: Permits,
}

/// `/ws?user_id=…` and `/ws/{user_id}`.
pub(super) fn routes(upgrades: &Arc<Upgrades>) -> BoxedFilter<(Response,)> {
    let request = head()
        .and(warp::ext::get::<ConnectionPermit>())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(is_head())
        .map(
            |head, permit, stream: Option<OnUpgrade>, is_head: bool| UpgradeRequest {
                head,
                permit,
                // A HEAD asks what a GET is answered with, and opens nothing.
                stream: stream.filter(|_| !is_head),
            },
        );
    let plain = warp::path!("ws")
        .and(get_or_head())
        .and(with(upgrades))
        .and(warp::query::<WsQuery>())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(request)
        .then(
            |upgrades: Arc<Upgrades>, mut query: WsQuery, raw: String, request| async move {
                // The query has U+FFFD in the place of what is no UTF-8.
                let is_replaced = |id: &String| id.contains(char::REPLACEMENT_CHARACTER);
                if decoded(&raw).is_none() && query.user_id.as_ref().is_some_and(is_replaced) {
                    query.user_id = Some(NOBODY.to_owned());
                }
                reply(upgrades.open(request, query, Encoding::Plain).await)
            },
        );
    let envelope = warp::path!("ws" / String)
        .and(get_or_head())
        .and(with(upgrades))
        .and(warp::query::<EnvelopeQuery>())
        .and(request)
        .then(
            |user_id: String, upgrades: Arc<Upgrades>, query: EnvelopeQuery, request| async move {
                let query = WsQuery {
                    user_id: Some(decoded(&user_id).unwrap_or_else(|| NOBODY.to_owned())),
                    kinds: query.kinds,
                    ..WsQuery::default()
                };
                reply(upgrades.open(request, query, Encoding::Envelope).await)
            },
        );
    plain.or(envelope).unify().boxed()
}

impl Upgrades {
    pub(super) fn new(api: &Api, admission: &Arc<Admission>) -> Self {
        Self {
            shared: Arc::clone(&api.shared),
            admission: Arc::clone(admission),
            token_in_query: api.token_in_query,
            tasks: api.tasks.clone(),
        }
    }

    /// Answers a request for a WebSocket with 101 and starts its connection, or refuses it. `encoding` is for
    /// a client that does not speak v1.
    async fn open(
        &self,
        request: UpgradeRequest,
        query: WsQuery,
        encoding: Encoding,
    ) -> Result<Response, ApiError> {
        let opened = self.try_open(request, query, encoding).await;
        opened.inspect_err(|error| {
            let rejected = &self.shared.metrics.connections_rejected;
            rejected.increment(error.rejected());
        })
    }

    async fn try_open(
        &self,
        request: UpgradeRequest,
        query: WsQuery,
        encoding: Encoding,
    ) -> Result<Response, ApiError> {
        let UpgradeRequest {
            head,
            permit,
            stream,
        } = request;
        let admission = &self.admission;
        admission.check_drain()?;
        admission.check_origin(&head.headers)?;
        let user_type = admission.user_type();
        let named = query.user_id.as_deref();
        let named = named.map(|id| admission.user(id)).transpose()?;
        if named.is_none() && !admission.needs_identity() {
            return Err(ApiError::UserIdMissing);
        }
        let kinds = query.kinds.as_deref().map(wanted_kinds).transpose()?;
        let handshake = Handshake::of(&head.headers, stream)?;
        let permits = admission.admit_socket(head.address, permit)?;
        let upgradable = Upgradable { handshake, permits };
        let offer = credentials::of_upgrade(&head.headers, query.proof, self.token_in_query);
        let encoding = if upgradable.handshake.offers_v1 || query.since.is_some() {
            Encoding::V1
        } else {
            encoding
        };
        let since = query.since.map(|text| text.parse().map(Arc::new));
        let pending = match admission.identify(&offer.credentials, named, None).await {
            Ok(identity) => {
                let asked = Asked {
                    kinds,
                    encoding,
                    since,
                    user_type,
                };
                self.subscribe(named, identity, asked).await
            }
            Err(error) => Err(error),
        };
        // Of a connection that is to end, hyper sends no response that upgrades it.
        admission.check_drain()?;
        match pending {
            Ok((pending, user)) => Ok(self.start(upgradable, pending, user)),
            Err(ApiError::Identity(error)) if offer.by_subprotocol => {
                Ok(self.close(upgradable, error))
            }
            Err(error) => Err(error),
        }
    }

    /// Subscribes the client to its user's events. Its device is looked up after that: the deletion of a
    /// device that is found comes as an event.
    async fn subscribe(
        &self,
        named: Option<UserKey>,
        identity: Option<Identity>,
        Asked {
            kinds,
            encoding,
            since,
            user_type,
        }: Asked,
    ) -> Result<(PendingConnection, Permit<UserKey>), ApiError> {
        let proven = identity.map(|identity| identity.user);
        let user = proven.or(named).ok_or(ApiError::UserIdMissing)?;
        let permit = self.admission.admit_user(user)?;
        let recipient = Recipient { user, kinds };
        let pending =
            PendingConnection::subscribe(&self.shared, recipient, encoding, since, identity);
        // Whoever finds the type changed closes the connections that have subscribed.
        if self.admission.user_type() != user_type {
            return Err(ApiError::DatabaseUnavailable);
        }
        if let Some(identity) = &identity {
            self.admission.confirm(identity).await?;
        }
        Ok((pending, permit))
    }

    /// Starts the connection. Returns the handshake's response.
    fn start(
        &self,
        upgradable: Upgradable,
        pending: PendingConnection,
        user: Permit<UserKey>,
    ) -> Response {
        let Upgradable { handshake, permits } = upgradable;
        let response = handshake.response();
        self.spawn(serve(Box::new(Opening {
            shared: Arc::clone(&self.shared),
            handshake,
            pending,
            permits: (permits, user),
        })));
        response
    }

    /// Opens the WebSocket only to close it. A browser shows its page a close code, but not the status of a
    /// refused handshake.
    fn close(&self, upgradable: Upgradable, error: AuthError) -> Response {
        let Upgradable {
            mut handshake,
            permits,
        } = upgradable;
        let response = handshake.response();
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            let _permits = permits;
            let (limits, within) = (shared.socket_limits, shared.timeouts.write_timeout);
            if let Some(socket) = handshake.socket(limits, within).await {
                let ending = Closed::ByServer(error.close_code());
                shared.close_queue.close(socket, ending.into()).await;
            }
        });
        response
    }

    /// Starts a client's own task. It ends without the others, and reports its panics.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "a client's task may end")]
        self.tasks.spawn(task);
    }
}

impl Opening {
    /// A function of its own: the box is freed only at the end of the function that takes it apart.
    fn complete(
        self: Box<Self>,
        socket: Socket<Transport>,
    ) -> (Connection<Transport>, Option<Since>, Permits) {
        self.shared.metrics.connection_opened();
        let (connection, since) = Connection::new(self.shared, socket, self.pending);
        (connection, since, self.permits)
    }
}

/// Serves a connection from the handshake's response to its end, and holds its permits meanwhile.
async fn serve(mut opening: Box<Opening>) {
    let shared = &opening.shared;
    let (limits, within) = (shared.socket_limits, shared.timeouts.write_timeout);
    let Some(socket) = opening.handshake.socket(limits, within).await else {
        return;
    };
    let (mut connection, since, permits) = opening.complete(socket);
    let served = AssertUnwindSafe(connection::run(&mut connection, since))
        .catch_unwind()
        .await;
    let closed = served.unwrap_or_else(|panic| report_panic(&connection, &*panic));
    let metrics = connection.metrics();
    // Boxed: an open connection does not need the state of its end.
    Box::pin(connection.close(closed)).await;
    metrics.connection_closed(closed);
    drop(permits);
}

/// A panic ends its own connection and no other; the client may come back with its cursor.
fn report_panic(connection: &Connection<Transport>, panic: &(dyn Any + Send)) -> Closed {
    let (connection_id, message) = (connection.id(), panic_message(panic));
    tracing::error!(event = "connection_panicked", %connection_id, message);
    connection.metrics().panics.increment(Panicked::Connection);
    Closed::ByServer(CloseCode::TryAgainLater)
}
