//! When the rows of a user's events were created: the page shows how long an event took.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::{answer, unavailable};
use crate::http::admission::Admission;
use crate::http::error::ApiError;
use crate::http::reply::reply;
use crate::http::request::{RequestHead, get_or_head, head, with};
use crate::protocol::Cursor;
use crate::store::Log;

/// Events in one question.
const TIMES_MAX: usize = 256;

#[derive(Debug, Deserialize)]
struct TimesQuery {
    user_id: Option<String>,
    /// A cursor from before the events.
    since: String,
    /// The events' ids, with commas between.
    ids: String,
}

#[derive(Serialize)]
struct Times {
    /// In ms since 1970, by the event's id. An event of another user is left out.
    times_ms: BTreeMap<i64, f64>,
}

/// Reads the times.
#[derive(Debug)]
struct CreationTimes {
    admission: Arc<Admission>,
    log: Log,
}

pub(super) fn route(admission: &Arc<Admission>, log: &Log) -> BoxedFilter<(Response,)> {
    let times = Arc::new(CreationTimes {
        admission: Arc::clone(admission),
        log: log.clone(),
    });
    warp::path!("console" / "times")
        .and(get_or_head())
        .and(with(&times))
        .and(head())
        .and(warp::query::<TimesQuery>())
        .then(|times: Arc<CreationTimes>, head, query| async move {
            reply(times.read(head, query).await)
        })
        .boxed()
}

impl CreationTimes {
    async fn read(&self, head: RequestHead, query: TimesQuery) -> Result<Response, ApiError> {
        let named = query.user_id.as_deref();
        let user_id = self.admission.admit_user_request(&head, named).await?;
        let ids: Result<Vec<i64>, _> = query.ids.split(',').map(str::parse).collect();
        let ids = ids.map_err(|_| ApiError::QueryMalformed)?;
        let since: Cursor = query.since.parse().map_err(|_| ApiError::QueryMalformed)?;
        if ids.len() > TIMES_MAX {
            return Err(ApiError::QueryMalformed);
        }
        let from = since.snapshot.xmin();
        let times = self.log.creation_times_of(user_id, &ids, from).await;
        let times = times.map_err(unavailable)?.into_iter();
        let times_ms = times.map(|(id, seconds)| (id, seconds * 1e3)).collect();
        Ok(answer(StatusCode::OK, &Times { times_ms }))
    }
}
