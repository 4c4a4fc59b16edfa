//! The nodes that share a bus, as the database knows them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::answer::{answer, unavailable};
use crate::http::admission::Admission;
use crate::http::error::ApiError;
use crate::http::reply::reply;
use crate::http::request::{RequestHead, get_or_head, head, with};
use crate::store::{self, Leader, Log, NodeRow, Role};

#[derive(Debug, Deserialize)]
struct NodesQuery {
    user_id: Option<String>,
}

/// `clients/console/src/api.ts` declares the same.
#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    id: Uuid,
    name: String,
    version: String,
    role: &'static str,
    /// The term that it leads or follows in.
    term: Option<u64>,
    connections: i32,
    /// Those that it takes from the bus; `None` where it reads the log of all users.
    shards: Option<i32>,
    lag_ms: u64,
    /// How long ago it has said this.
    seen_ms: u64,
}

/// Reads the nodes.
#[derive(Debug)]
struct NodeList {
    admission: Arc<Admission>,
    log: Log,
}

pub(super) fn route(admission: &Arc<Admission>, log: &Log) -> BoxedFilter<(Response,)> {
    let list = Arc::new(NodeList {
        admission: Arc::clone(admission),
        log: log.clone(),
    });
    warp::path!("console" / "nodes")
        .and(get_or_head())
        .and(with(&list))
        .and(head())
        .and(warp::query::<NodesQuery>())
        .then(|list: Arc<NodeList>, head, query| async move { reply(list.read(head, query).await) })
        .boxed()
}

impl NodeList {
    async fn read(&self, head: RequestHead, query: NodesQuery) -> Result<Response, ApiError> {
        let named = query.user_id.as_deref();
        self.admission.admit_user_request(&head, named).await?;
        let read = async {
            let rows = self.log.nodes().await?;
            Ok((rows, self.log.leader().await?))
        };
        let (rows, leader) = match read.await {
            // The schema before migration 12 has none.
            Err(error) if store::is_undefined_function(&error) => (Vec::new(), None),
            found => found.map_err(unavailable)?,
        };
        let nodes = rows.into_iter().map(|row| node(row, leader.as_ref()));
        let nodes = nodes.collect();
        Ok(answer(StatusCode::OK, &Nodes { nodes }))
    }
}

fn node(row: NodeRow, leader: Option<&Leader>) -> Node {
    let ms = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Node {
        term: row.term(leader),
        id: row.node,
        name: row.name,
        version: row.version,
        role: row.role.into(),
        connections: row.connections,
        shards: (row.role == Role::Follower).then_some(row.shards),
        lag_ms: ms(row.lag),
        seen_ms: ms(row.seen_age),
    }
}
