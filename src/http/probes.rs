//! What an operator's machines ask for: whether the process lives, whether events come, and the metrics.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::readiness;
use super::reply::{json, with_type};
use super::request::get_or_head;
use crate::connection::{Drain, Shared};
use crate::delivery::{Feed, Finding};
use crate::protocol::ReadinessReason;

/// The content type of Prometheus's text format.
const EXPOSITION_TYPE: &str = "text/plain; version=0.0.4";

/// `/healthz` and `/readyz`.
pub(super) fn routes(shared: &Shared) -> BoxedFilter<(Response,)> {
    let (drain, feed) = (shared.drain.clone(), shared.feed.clone());
    let health = warp::path!("healthz")
        .and(get_or_head())
        .map(|| json(StatusCode::OK, "alive"));
    let ready = warp::path!("readyz")
        .and(get_or_head())
        .map(move || readiness::answer(&findings(&drain, &feed)));
    health.or(ready).unify().boxed()
}

/// `/metrics`.
pub(super) fn metrics(shared: &Shared) -> BoxedFilter<(Response,)> {
    let (metrics, hub) = (Arc::clone(&shared.metrics), shared.hub.clone());
    let (drain, feed) = (shared.drain.clone(), shared.feed.clone());
    warp::path!("metrics")
        .and(get_or_head())
        .map(move || {
            let findings = findings(&drain, &feed);
            let is_given = |reason| findings.iter().any(|finding| finding.reason == reason);
            metrics.readiness_reasons.set_all(is_given);
            with_type(metrics.render(hub.users_connected()), EXPOSITION_TYPE)
        })
        .boxed()
}

/// Every reason why new clients should not be sent to this server, or why someone should look at it.
fn findings(drain: &Drain, feed: &watch::Receiver<Feed>) -> Vec<Finding> {
    let draining = drain.has_begun().then_some(Finding {
        reason: ReadinessReason::Draining,
        detail: None,
    });
    let of_feed = feed.borrow().findings(Instant::now());
    draining.into_iter().chain(of_feed).collect()
}
