//! HTTP requests over one connection each, and the values of metrics.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::soon;

/// The head of a GET request after whose answer the server closes the connection.
#[must_use]
pub fn get_head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Sends a GET request. Fails if the server cannot be reached or answers no HTTP.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    request(address, &get_head(path)).await
}

/// Sends the bytes of a request unchanged and reads until the server closes the connection.
pub async fn request(address: SocketAddr, text: &str) -> io::Result<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Response::parse(&answer)
    };
    soon("an HTTP response", exchange).await
}

/// Sends the bytes of a request unchanged and reads one response: of 101 Switching Protocols the head, otherwise as many
/// bytes as its content-length says. The server may keep the connection open.
pub async fn first_response(address: SocketAddr, text: &str) -> io::Result<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut bytes = Vec::new();
        loop {
            let read = stream.read_buf(&mut bytes).await?;
            if read == 0 || is_whole(&bytes) {
                return Response::parse(&String::from_utf8_lossy(&bytes));
            }
        }
    };
    soon("an HTTP response", exchange).await
}

fn is_whole(response: &[u8]) -> bool {
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(head_bytes) = end else {
        return false;
    };
    let head = Response::parse(&String::from_utf8_lossy(&response[..head_bytes]));
    head.is_ok_and(|head| {
        let length = head.headers.get("content-length");
        let length = length.and_then(|length| length.parse::<usize>().ok());
        head.status == 101 || length.is_some_and(|bytes| response.len() >= head_bytes + 4 + bytes)
    })
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names are in lower case. Of a repeated header, the last one.
    pub headers: HashMap<String, String>,
    /// The body as it was sent; a chunked one is not decoded.
    pub body: String,
}

impl Response {
    fn parse(text: &str) -> io::Result<Self> {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {text:?}"))
            })?;
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Ok(Self {
            status,
            headers,
            body: body.to_owned(),
        })
    }

    /// The value of a metric's series in an exposition, named with its labels as they stand there.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        self.body
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_a_status_headers_and_a_body() {
        let text = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n{\"a\":1}";
        let response = Response::parse(text).unwrap();
        assert_eq!(response.status, 404);
        assert_eq!(response.headers["content-type"], "application/json");
        assert_eq!(response.json()["a"], 1);
        assert!(Response::parse("").is_err());
        assert!(Response::parse("nonsense").is_err());
    }

    #[test]
    fn a_response_is_whole_with_its_last_byte() {
        let text = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}";
        for bytes in 0..text.len() {
            assert!(!is_whole(&text.as_bytes()[..bytes]), "{bytes}");
        }
        assert!(is_whole(text.as_bytes()));
        assert!(is_whole(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\n{}"));
    }

    #[test]
    fn a_series_is_found_by_its_whole_name() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# HELP open\nopen_total 7\nopen{by=\"a\"} 2\nopen 3\n";
        let response = Response::parse(text).unwrap();
        assert_eq!(response.metric("open"), Some(3.0));
        assert_eq!(response.metric("open{by=\"a\"}"), Some(2.0));
        assert_eq!(response.metric("closed"), None);
    }
}
