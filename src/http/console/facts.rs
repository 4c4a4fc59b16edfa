//! What the page must know before anyone has proven an identity.

use serde::Serialize;
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::{answer, unavailable};
use crate::config::AuthMode;
use crate::http::api::Console;
use crate::http::error::ApiError;
use crate::http::reply::reply;
use crate::http::request::get_or_head;
use crate::store::{Log, demo};

#[derive(Serialize)]
struct Facts {
    version: &'static str,
    auth: AuthMode,
    /// The users for whom the page may send messages; `None` if it may not.
    demo: Option<Vec<DemoUser>>,
}

#[derive(Serialize)]
struct DemoUser {
    id: Uuid,
    username: &'static str,
}

pub(super) fn route(log: &Log, console: Console) -> BoxedFilter<(Response,)> {
    let log = log.clone();
    warp::path!("console" / "facts")
        .and(get_or_head())
        .then(move || {
            let log = log.clone();
            async move { reply(facts(&log, console).await) }
        })
        .boxed()
}

async fn facts(log: &Log, console: Console) -> Result<Response, ApiError> {
    let demo = if console.acts() {
        Some(demo_users(log).await.map_err(unavailable)?)
    } else {
        None
    };
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        auth: console.auth,
        demo,
    };
    Ok(answer(StatusCode::OK, &facts))
}

async fn demo_users(log: &Log) -> Result<Vec<DemoUser>, sqlx::Error> {
    let pool = log.requests();
    let mut users = Vec::new();
    for username in [demo::SENDER, demo::RECIPIENT] {
        let id = demo::user_id(&pool, username).await?;
        users.extend(id.map(|id| DemoUser { id, username }));
    }
    Ok(users)
}
