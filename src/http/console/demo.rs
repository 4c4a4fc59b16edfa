//! Messages between the demo users, which the page sends where nobody has to prove an identity.

use std::sync::Arc;

use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode, header};
use warp::reply::Response;

use super::answer::{answer, unavailable};
use crate::http::admission::Admission;
use crate::http::error::{ApiError, BodyTooLong};
use crate::http::reply::reply;
use crate::http::request::{RequestHead, head, with};
use crate::store::{Log, demo};

/// A request to send a message, in bytes; the message's text is a line that someone types.
const MESSAGE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    from: String,
    to: String,
    text: String,
}

/// Sends the messages.
#[derive(Debug)]
struct DemoMessages {
    admission: Arc<Admission>,
    log: Log,
}

pub(super) fn route(admission: &Arc<Admission>, log: &Log) -> BoxedFilter<(Response,)> {
    let messages = Arc::new(DemoMessages {
        admission: Arc::clone(admission),
        log: log.clone(),
    });
    let short = head().and_then(|head: RequestHead| async move {
        if is_short(&head.headers) {
            Ok(head)
        } else {
            Err(warp::reject::custom(BodyTooLong))
        }
    });
    warp::path!("console" / "demo" / "messages")
        .and(warp::post())
        .and(with(&messages))
        .and(short)
        .and(warp::body::bytes())
        .then(
            |messages: Arc<DemoMessages>, head, body: Bytes| async move {
                reply(messages.send(head, &body).await)
            },
        )
        .boxed()
}

impl DemoMessages {
    async fn send(&self, head: RequestHead, body: &[u8]) -> Result<Response, ApiError> {
        self.admission.check_origin(&head.headers)?;
        // A form of another page cannot send this type, and a script of that page must ask the server first.
        if !is_json(&head.headers) {
            return Err(ApiError::OriginNotAllowed);
        }
        self.admission.check_rate(head.address)?;
        let message: Message =
            serde_json::from_slice(body).map_err(|_| ApiError::DemoMessageMalformed)?;
        let pool = self.log.requests();
        let sent = demo::send(&pool, &message.from, &message.to, &message.text);
        let sent = sent.await.map_err(unavailable)?;
        if sent.is_empty() {
            return Err(ApiError::DemoUserUnknown);
        }
        Ok(answer(StatusCode::CREATED, &json!({ "messages": sent })))
    }
}

/// Whether the body's length is given and small enough for the body to be read.
fn is_short(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .is_some_and(|bytes| bytes <= MESSAGE_BYTES_MAX)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_accepted() {
        for (value, accepted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/json-seq", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_json(&headers), accepted, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
