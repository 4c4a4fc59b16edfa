//! The opening handshake (RFC 6455, section 4.2), as far as header fields go.
//!
//! Pure: the HTTP server of the caller reads the request, sends the response and hands over the stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use sha1::{Digest, Sha1};

/// A key is 16 bytes: in base64 22 characters and two of padding.
const KEY_BYTES: usize = 24;
/// The same for every server (RFC 6455, 1.3).
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A valid request for a WebSocket.
#[derive(Debug)]
pub struct Handshake {
    accept: HeaderValue,
}

/// Why a request is not a valid request for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The request does not ask for a WebSocket.
    #[error("the request is without Connection: upgrade or without Upgrade: websocket")]
    NotAWebSocket,
    /// Another version of the protocol.
    #[error("Sec-WebSocket-Version is not 13")]
    Version,
    /// The key is missing or malformed.
    #[error("Sec-WebSocket-Key is not 16 bytes in base64")]
    Key,
}

impl Handshake {
    /// Checks the header fields of a request.
    pub fn parse(headers: &HeaderMap) -> Result<Self, HandshakeError> {
        if !lists(headers, &CONNECTION, "upgrade") || !lists(headers, &UPGRADE, "websocket") {
            return Err(HandshakeError::NotAWebSocket);
        }
        if !lists(headers, &SEC_WEBSOCKET_VERSION, "13") {
            return Err(HandshakeError::Version);
        }
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .map(HeaderValue::as_bytes)
            .filter(|key| key.len() == KEY_BYTES && key.ends_with(b"=="))
            .ok_or(HandshakeError::Key)?;
        let hash = Sha1::new_with_prefix(key).chain_update(ACCEPT_SUFFIX);
        let accept = STANDARD.encode(hash.finalize());
        Ok(Self {
            accept: HeaderValue::from_str(&accept).map_err(|_| HandshakeError::Key)?,
        })
    }

    /// Whether the client offers this subprotocol.
    #[must_use]
    pub fn offers(headers: &HeaderMap, subprotocol: &str) -> bool {
        lists(headers, &SEC_WEBSOCKET_PROTOCOL, subprotocol)
    }

    /// The response that opens the WebSocket, with the subprotocol that the server has chosen.
    #[must_use]
    pub fn response<B: Default>(&self, subprotocol: Option<&'static str>) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if let Some(subprotocol) = subprotocol {
            let subprotocol = HeaderValue::from_static(subprotocol);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        response
    }
}

/// Whether a header field that lists tokens has this one, in any case of letters.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, 1.3, with some header fields replaced or, if empty, removed.
    fn request(changes: &[(&'static str, &'static str)]) -> HeaderMap {
        let valid = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in valid.iter().chain(changes) {
            if value.is_empty() {
                headers.remove(*name);
            } else {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        headers
    }

    #[test]
    fn the_response_to_the_request_of_the_rfc_is_that_of_the_rfc() {
        let handshake = Handshake::parse(&request(&[])).unwrap();
        let response: Response<()> = handshake.response(None);
        assert_eq!(response.status(), 101);
        let headers = response.headers();
        assert_eq!(headers.len(), 3);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        assert_eq!(
            headers[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let response: Response<()> = handshake.response(Some("chat"));
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "chat");
    }

    #[test]
    fn tokens_are_found_in_lists_and_in_any_case_of_letters() {
        let mut headers = request(&[
            ("connection", "keep-alive, UPGRADE"),
            ("upgrade", "WebSocket"),
        ]);
        assert!(Handshake::parse(&headers).is_ok());
        assert!(!Handshake::offers(&headers, "chat"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v1,v2"));
        headers.append(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("mail , chat"),
        );
        for offered in ["v1", "v2", "mail", "chat"] {
            assert!(Handshake::offers(&headers, offered), "{offered}");
        }
        for not_offered in ["v", "v3", "cha", "chat2", ""] {
            assert!(!Handshake::offers(&headers, not_offered), "{not_offered}");
        }
    }

    #[test]
    fn a_value_that_is_not_text_hides_no_other() {
        let mut headers = request(&[]);
        headers.insert(UPGRADE, HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(Handshake::parse(&headers).is_ok());
    }

    #[test]
    fn an_invalid_request_is_refused_with_its_reason() {
        use HandshakeError::{Key, NotAWebSocket, Version};
        for (change, expected) in [
            (("connection", ""), NotAWebSocket),
            (("connection", "keep-alive"), NotAWebSocket),
            (("upgrade", ""), NotAWebSocket),
            (("upgrade", "h2c"), NotAWebSocket),
            (("sec-websocket-version", ""), Version),
            (("sec-websocket-version", "8"), Version),
            (("sec-websocket-key", ""), Key),
            (("sec-websocket-key", "dGhlIHNhbXBsZSBub25j"), Key),
            (("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSE="), Key),
            (
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSBpcyBsb25nZQ=="),
                Key,
            ),
        ] {
            let refused = Handshake::parse(&request(&[change]));
            assert_eq!(refused.unwrap_err(), expected, "{change:?}");
        }
    }
}
