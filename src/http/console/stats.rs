//! The figures that the page draws: each is read from the service's counters when it is asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::answer;
use super::reader::{Reader, reader};
use crate::http::api::Api;
use crate::http::reply::{ApiError, reply};

#[derive(Debug, Deserialize)]
struct StatsQuery {
    user_id: Option<String>,
}

/// `clients/console/src/api.ts` declares the same.
#[derive(Serialize)]
struct Stats {
    /// The service's clock, in ms since 1970.
    now_ms: f64,
    connections_open: i64,
    users_connected: usize,
    events_received_total: u64,
    events_delivered_total: u64,
    /// Of the last second's deliveries; `None` if there were none.
    delivery_latency_p99_ms: Option<f64>,
}

pub(super) fn route(api: &Api) -> BoxedFilter<(Response,)> {
    warp::path!("console" / "stats")
        .and(warp::get())
        .and(reader(api))
        .and(warp::query::<StatsQuery>())
        .then(|reader: Reader, query| async move { reply(stats(&reader, query).await) })
        .boxed()
}

async fn stats(reader: &Reader, query: StatsQuery) -> Result<Response, ApiError> {
    reader.user(query.user_id.as_deref()).await?;
    let shared = &reader.api.shared;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let p99 = shared.latency.p99();
    let stats = Stats {
        now_ms: now.unwrap_or_default().as_secs_f64() * 1e3,
        connections_open: shared.metrics.connections_open.get(),
        users_connected: shared.hub.users_connected(),
        events_received_total: shared.metrics.events_received.total(),
        events_delivered_total: shared.metrics.events_delivered.total(),
        delivery_latency_p99_ms: p99.map(|p99| p99.as_secs_f64() * 1e3),
    };
    Ok(answer(StatusCode::OK, &stats))
}
