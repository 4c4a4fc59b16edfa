//! The figures that the page draws: each is read from the service's counters when it is asked for.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::answer;
use crate::connection::Shared;
use crate::delivery::{Hub, LatencySampler};
use crate::http::admission::Admission;
use crate::http::error::ApiError;
use crate::http::reply::reply;
use crate::http::request::{RequestHead, get_or_head, head, with};
use crate::metrics::Metrics;

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

/// Reads the figures.
#[derive(Debug)]
struct Figures {
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    hub: Hub,
    latency: LatencySampler,
}

pub(super) fn route(admission: &Arc<Admission>, shared: &Shared) -> BoxedFilter<(Response,)> {
    let figures = Arc::new(Figures {
        admission: Arc::clone(admission),
        metrics: Arc::clone(&shared.metrics),
        hub: shared.hub.clone(),
        latency: shared.latency.clone(),
    });
    warp::path!("console" / "stats")
        .and(get_or_head())
        .and(with(&figures))
        .and(head())
        .and(warp::query::<StatsQuery>())
        .then(
            |figures: Arc<Figures>, head, query| async move { reply(figures.read(head, query).await) },
        )
        .boxed()
}

impl Figures {
    async fn read(&self, head: RequestHead, query: StatsQuery) -> Result<Response, ApiError> {
        let named = query.user_id.as_deref();
        self.admission.admit_user_request(&head, named).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let p99 = self.latency.p99();
        let stats = Stats {
            now_ms: now.unwrap_or_default().as_secs_f64() * 1e3,
            connections_open: self.metrics.connections_open.get(),
            users_connected: self.hub.users_connected(),
            events_received_total: self.metrics.events_received.total(),
            events_delivered_total: self.metrics.events_delivered.total(),
            delivery_latency_p99_ms: p99.map(|p99| p99.as_secs_f64() * 1e3),
        };
        Ok(answer(StatusCode::OK, &stats))
    }
}
