//! `/console`: a page to watch a user's events with, and what it asks the service for.
//!
//! The page and its script are public; whatever tells of a user or of the service wants the same identity
//! as the reads of state. The page may load nothing from elsewhere, and nothing in it is evaluated: its
//! policy says so. In `run` it may also act for the demo users, with real rows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::api::{Api, Console, with_api};
use super::reply::{ApiError, BodyTooLong, reply, with_type};
use super::{credentials, origin};
use crate::config::AuthMode;
use crate::edge::{Headers, Peer, client_address};
use crate::protocol::Cursor;
use crate::store::demo;

/// Events whose times are asked for at once.
const TIMES_MAX: usize = 256;
/// A request to send a demo message, in bytes; its text is a line that someone types.
const DEMO_MESSAGE_BYTES_MAX: u64 = 4_096;
/// Nothing from another host, no script but the page's own, and no page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Console {
    /// Where users have to prove who they are, the page acts for nobody.
    fn acts(self) -> bool {
        self.demo && self.auth == AuthMode::None
    }
}

#[derive(Debug, Deserialize)]
struct StatsQuery {
    user_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TimesQuery {
    user_id: Option<String>,
    /// A cursor from before the events.
    since: String,
    /// Their ids, with commas between.
    ids: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DemoMessage {
    from: String,
    to: String,
    text: String,
}

/// Every route of the page's.
pub(super) fn routes(api: &Api, console: Console) -> BoxedFilter<(Response,)> {
    let page = warp::path!("console").and(warp::get()).map(|| {
        let text = include_str!("console/console.html");
        asset(text, "text/html; charset=utf-8")
    });
    let script = warp::path!("console" / "console.js")
        .and(warp::get())
        .map(|| {
            let text = include_str!("console/console.js");
            asset(text, "text/javascript; charset=utf-8")
        });
    let style = warp::path!("console" / "console.css")
        .and(warp::get())
        .map(|| {
            let text = include_str!("console/console.css");
            asset(text, "text/css; charset=utf-8")
        });
    let facts = warp::path!("console" / "facts")
        .and(warp::get())
        .and(with_api(api))
        .then(move |api: Arc<Api>| async move { reply(facts(&api, console).await) });
    let all = page
        .or(script)
        .unify()
        .or(style)
        .unify()
        .or(facts)
        .unify()
        .or(figures(api))
        .unify();
    if console.acts() {
        all.or(demo_messages(api)).unify().boxed()
    } else {
        all.boxed()
    }
}

/// What wants an identity.
fn figures(api: &Api) -> BoxedFilter<(Response,)> {
    let reader = |api: &Api| {
        let with_reader = warp::ext::get::<Headers>().and(warp::ext::get::<Peer>());
        with_api(api).and(with_reader).map(Reader::new)
    };
    let stats = warp::path!("console" / "stats")
        .and(warp::get())
        .and(reader(api))
        .and(warp::query::<StatsQuery>())
        .then(|reader: Reader, query| async move { reply(reader.stats(query).await) });
    let times = warp::path!("console" / "times")
        .and(warp::get())
        .and(reader(api))
        .and(warp::query::<TimesQuery>())
        .then(|reader: Reader, query| async move { reply(reader.times(query).await) });
    stats.or(times).unify().boxed()
}

fn demo_messages(api: &Api) -> BoxedFilter<(Response,)> {
    warp::path!("console" / "demo" / "messages")
        .and(warp::post())
        .and(with_api(api))
        .and(
            warp::ext::get::<Headers>().and_then(|headers: Headers| async move {
                if is_short(&headers) {
                    Ok(headers)
                } else {
                    Err(warp::reject::custom(BodyTooLong))
                }
            }),
        )
        .and(warp::ext::get::<Peer>())
        .and(warp::body::bytes())
        .then(|api, headers, peer, body: Bytes| async move {
            let reader = Reader::new(api, headers, peer);
            reply(reader.send_demo_message(&body).await)
        })
        .boxed()
}

fn asset(text: &'static str, content_type: &'static str) -> Response {
    let mut response = with_type(text, content_type);
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut response = with_type(body.to_string(), "application/json");
    *response.status_mut() = status;
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// What the page has to know before anyone has said who they are.
async fn facts(api: &Api, console: Console) -> Result<Response, ApiError> {
    let mut users = Value::Null;
    if console.acts() {
        let pool = api.shared.log.requests();
        let mut found = Vec::new();
        for username in [demo::SENDER, demo::RECIPIENT] {
            let id = demo::user_id(&pool, username).await.map_err(unavailable)?;
            found.extend(id.map(|id| json!({ "id": id, "username": username })));
        }
        users = Value::Array(found);
    }
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "auth": console.auth,
        "demo": users,
    });
    Ok(answer(StatusCode::OK, &body))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn unavailable(error: sqlx::Error) -> ApiError {
    tracing::warn!(event = "console_read_failed", %error);
    ApiError::DatabaseUnavailable
}

/// Who looks at the page.
struct Reader {
    api: Arc<Api>,
    headers: Headers,
    address: IpAddr,
}

impl Reader {
    fn new(api: Arc<Api>, headers: Headers, peer: Peer) -> Self {
        let address = client_address(peer, &headers, &api.trusted_proxies);
        Self {
            api,
            headers,
            address,
        }
    }

    /// Whose figures are asked for: by the proof, or where nobody has to prove anything by what is said.
    async fn user(&self, named: Option<&str>) -> Result<Uuid, ApiError> {
        let shared = &self.api.shared;
        let admitted = shared.limits.admit_request(self.address);
        admitted.map_err(ApiError::Limited)?;
        let named = named.map(str::parse::<Uuid>).transpose();
        let named = named.map_err(|_| ApiError::UserIdMalformed)?;
        let credentials = credentials::in_headers(&self.headers);
        let identity = shared.auth.identify(&credentials, named, None).await;
        let identity = identity.map_err(|error| {
            shared.metrics.identity_refused(error);
            ApiError::Identity(error)
        })?;
        let proven = identity.map(|identity| identity.user_id);
        proven.or(named).ok_or(ApiError::UserIdMissing)
    }

    async fn stats(self, query: StatsQuery) -> Result<Response, ApiError> {
        self.user(query.user_id.as_deref()).await?;
        let shared = &self.api.shared;
        let users_connected = shared.hub.users_connected();
        let text = shared.metrics.render(users_connected);
        let total = |series: &str| total_of(&text, series);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let p99 = shared.latency.p99();
        Ok(answer(
            StatusCode::OK,
            &json!({
                "now_ms": now.unwrap_or_default().as_secs_f64() * 1e3,
                "connections_open": total("hushnet_connections_open"),
                "users_connected": users_connected,
                "events_received_total": total("hushnet_events_received_total"),
                "events_delivered_total": total("hushnet_events_delivered_total"),
                "delivery_latency_p99_ms": p99.map(|p99| p99.as_secs_f64() * 1e3),
            }),
        ))
    }

    async fn times(self, query: TimesQuery) -> Result<Response, ApiError> {
        let user_id = self.user(query.user_id.as_deref()).await?;
        let ids: Result<Vec<i64>, _> = query.ids.split(',').map(str::parse).collect();
        let ids = ids.map_err(|_| ApiError::QueryMalformed)?;
        let since: Cursor = query.since.parse().map_err(|_| ApiError::QueryMalformed)?;
        if ids.len() > TIMES_MAX {
            return Err(ApiError::QueryMalformed);
        }
        let log = &self.api.shared.log;
        let times = log.creation_times_of(user_id, &ids, since.snapshot.xmin());
        let times = times.await.map_err(unavailable)?;
        let times: Map<String, Value> = times
            .into_iter()
            .map(|(id, seconds)| (id.to_string(), json!(seconds * 1e3)))
            .collect();
        Ok(answer(StatusCode::OK, &json!({ "times_ms": times })))
    }

    async fn send_demo_message(self, body: &[u8]) -> Result<Response, ApiError> {
        // A form of another page cannot send this type, and its script would have to ask first.
        if !origin::is_allowed(&self.api.origins, &self.headers) || !says_json(&self.headers) {
            return Err(ApiError::OriginNotAllowed);
        }
        let admitted = self.api.shared.limits.admit_request(self.address);
        admitted.map_err(ApiError::Limited)?;
        let message: DemoMessage =
            serde_json::from_slice(body).map_err(|_| ApiError::DemoMessageMalformed)?;
        let pool = self.api.shared.log.requests();
        let sent = demo::send(&pool, &message.from, &message.to, &message.text);
        let sent = sent.await.map_err(unavailable)?;
        if sent.is_empty() {
            return Err(ApiError::DemoUserUnknown);
        }
        Ok(answer(StatusCode::CREATED, &json!({ "messages": sent })))
    }
}

fn is_short(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|bytes| bytes <= DEMO_MESSAGE_BYTES_MAX)
}

fn says_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

/// The sum of a series over its labels, out of the exposition.
fn total_of(exposition: &str, series: &str) -> f64 {
    exposition
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(series)?;
            let value = match rest.strip_prefix('{') {
                Some(labelled) => labelled.rsplit_once("} ")?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.parse::<f64>().ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_summed_over_its_labels_and_no_other() {
        let text = "# HELP a_total x\na_total{kind=\"x\"} 3\na_total{kind=\"y\"} 4\n\
                    a_total_more 100\nb 7\n";
        assert!((total_of(text, "a_total") - 7.0).abs() < f64::EPSILON);
        assert!((total_of(text, "b") - 7.0).abs() < f64::EPSILON);
        assert!(total_of(text, "c").abs() < f64::EPSILON);
    }

    #[test]
    fn only_json_is_taken() {
        for (value, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/json-seq", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(says_json(&headers), taken, "{value}");
        }
        assert!(!says_json(&HeaderMap::new()));
    }
}
