//! What an operator's machines ask for: whether the process lives, whether events come, and the metrics.

use std::sync::Arc;

use tokio::sync::watch;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::error::ApiError;
use super::reply::{json, reply, with_type};
use crate::connection::Drain;
use crate::delivery::{Feed, Hub};
use crate::metrics::Metrics;

/// The content type of Prometheus's text format.
const EXPOSITION_TYPE: &str = "text/plain; version=0.0.4";

/// `/healthz` and `/readyz`.
pub(super) fn routes(drain: &Drain, feed: &watch::Receiver<Feed>) -> BoxedFilter<(Response,)> {
    let (drain, feed) = (drain.clone(), feed.clone());
    let health = warp::path!("healthz")
        .and(warp::get())
        .map(|| json(StatusCode::OK, "alive"));
    let ready = warp::path!("readyz")
        .and(warp::get())
        .map(move || reply(readiness(&drain, &feed.borrow())));
    health.or(ready).unify().boxed()
}

/// `/metrics`.
pub(super) fn metrics(metrics: &Arc<Metrics>, hub: &Hub) -> BoxedFilter<(Response,)> {
    let (metrics, hub) = (Arc::clone(metrics), hub.clone());
    warp::path!("metrics")
        .and(warp::get())
        .map(move || with_type(metrics.render(hub.users_connected()), EXPOSITION_TYPE))
        .boxed()
}

/// Whether new clients should be sent to this server.
fn readiness(drain: &Drain, feed: &Feed) -> Result<Response, ApiError> {
    if drain.has_begun() {
        Err(ApiError::Draining)
    } else if !feed.is_live() {
        Err(ApiError::ListenerDisconnected)
    } else if feed.is_uncommitted() {
        Err(ApiError::BarrierUncommitted)
    } else {
        Ok(json(StatusCode::OK, "ready"))
    }
}
