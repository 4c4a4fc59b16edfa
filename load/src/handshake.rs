//! A client's half of the WebSocket handshake.

use std::fmt::Write;

use anyhow::{Context, bail, ensure};
use uuid::Uuid;

use crate::target::Target;

/// RFC 6455's own example. One key for all, so that the answer need not be computed.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 << 10;
/// As much of a refusal's body as an error message shows.
const BODY_BYTES_SHOWN: usize = 200;

/// The subprotocol of clients with cursors.
pub(crate) const SUBPROTOCOL: &str = "hushnet.v1";

/// Who asks, and from where on.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: Uuid,
    /// Asks for the subprotocol.
    pub(crate) v1: bool,
    pub(crate) since: Option<Box<str>>,
}

/// The request's bytes.
pub(crate) fn request(target: &Target, caller: &Caller) -> String {
    let mut request = format!("GET {}{}", target.path, caller.user);
    if let Some(since) = &caller.since {
        request.push_str("&since=");
        percent_encode(since, &mut request);
    }
    request.push_str(" HTTP/1.1\r\nHost: ");
    request.push_str(&target.authority);
    request.push_str("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13");
    request.push_str("\r\nSec-WebSocket-Key: ");
    request.push_str(KEY);
    if caller.v1 {
        request.push_str("\r\nSec-WebSocket-Protocol: ");
        request.push_str(SUBPROTOCOL);
    }
    request.push_str("\r\n\r\n");
    request
}

fn percent_encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// The length of the response's head; `None` while it is incomplete. Anything but a 101 is an error.
pub(crate) fn response(data: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(data)
        .context("the server does not speak HTTP")?;
    let httparse::Status::Complete(length) = parsed else {
        ensure!(
            data.len() < HEAD_BYTES_MAX,
            "the response's head does not end"
        );
        return Ok(None);
    };
    if response.code != Some(101) {
        let body = &data[length..];
        let body = String::from_utf8_lossy(&body[..body.len().min(BODY_BYTES_SHOWN)]);
        bail!(
            "the handshake is answered with {}: {}",
            response.code.unwrap_or(0),
            body.trim()
        );
    }
    let accept = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    ensure!(
        accept.is_some_and(|header| header.value == ACCEPT),
        "the handshake's Sec-WebSocket-Accept is wrong"
    );
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn a_cursor_is_percent_encoded() {
        let target = Target::parse("ws://127.0.0.1:8080/ws").unwrap();
        let caller = Caller {
            user: Uuid::nil(),
            v1: true,
            since: Some("a-b.c:1/2+3".into()),
        };
        let request = request(&target, &caller);
        let line =
            "GET /ws?user_id=00000000-0000-0000-0000-000000000000&since=a-b.c%3A1%2F2%2B3 HTTP";
        assert!(request.starts_with(line), "{request}");
        assert!(request.contains("\r\nSec-WebSocket-Protocol: hushnet.v1\r\n"));
        assert!(request.ends_with("\r\n\r\n"));
    }

    #[test]
    fn the_head_ends_where_frames_begin() {
        let mut data = GOOD.to_vec();
        assert_eq!(response(&data[..data.len() - 1]).unwrap(), None);
        data.extend_from_slice(&[0x81, 0]);
        assert_eq!(response(&data).unwrap(), Some(GOOD.len()));
    }

    #[test]
    fn a_refusal_says_status_and_body() {
        let refused = b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":1}\n";
        let message = response(refused).unwrap_err().to_string();
        assert_eq!(message, "the handshake is answered with 503: {\"error\":1}");
    }

    #[test]
    fn a_wrong_accept_is_an_error() {
        let wrong = String::from_utf8_lossy(GOOD).replace("s3p", "s3q");
        assert!(response(wrong.as_bytes()).is_err());
    }
}
