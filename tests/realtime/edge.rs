//! The ways to the service: TLS, web pages, proxies, and the operators' own address.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hushnet_realtime::config::{AuthMode, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use uuid::Uuid;

use crate::support::{Server, soon, until};

/// A certificate for this machine, in files.
pub struct Certificate {
    directory: tempfile::TempDir,
}

impl Certificate {
    pub fn make() -> Self {
        let certificate = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        certificate.exchange();
        certificate
    }

    /// Replaces the files' certificate with a new one.
    pub fn exchange(&self) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(self.path(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    pub fn serve(&self, config: &mut Config) {
        config.edge.tls_certificate_file = Some(self.path());
        config.edge.tls_key_file = Some(self.key());
    }
}

/// Asks over TLS, believing only this certificate; `None` if the server shows another.
async fn ask(server: &Server, certificate: &Path) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certificate).unwrap())
        .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let connecting =
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
    let mut stream = soon("a greeting", connecting).await.ok()?;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The connection may end without TLS's close_notify.
    let _ = soon("an answer", stream.read_to_string(&mut answer)).await;
    Some(answer)
}

#[tokio::test]
async fn a_certificate_is_exchanged_at_sighup() {
    let certificate = Certificate::make();
    let server = Server::start_unready(crate::support::Database::migrated().await, |config| {
        certificate.serve(config);
    });
    let answer = ask(&server, &certificate.path()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let hang_up = || {
        let pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-HUP", &pid])
            .status();
        assert!(sent.unwrap().success());
    };

    // A file that cannot be read changes nothing.
    let before = Certificate::make();
    std::fs::copy(certificate.path(), before.path()).unwrap();
    std::fs::write(certificate.path(), "nothing").unwrap();
    hang_up();
    assert!(ask(&server, &before.path()).await.is_some());
    certificate.exchange();
    assert!(ask(&server, &certificate.path()).await.is_none());
    hang_up();
    until("the new one is shown", async || {
        ask(&server, &certificate.path()).await.is_some()
    })
    .await;
}

/// A connection without a TLS handshake is closed after the time for a request's head.
#[tokio::test]
async fn a_connection_without_a_tls_handshake_is_closed() {
    let certificate = Certificate::make();
    let server = Server::start_unready(crate::support::Database::migrated().await, |config| {
        certificate.serve(config);
        config.limits.request_head_timeout_ms = 200;
    });
    for beginning in [&b""[..], b"GET /healthz HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut rest)).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200"), "{rest:?}");
    }
}

fn page(path: &str, origin: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: rt.example\r\nOrigin: {origin}\r\n\
         Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
}

#[tokio::test]
async fn a_web_page_connects_from_the_same_host_or_an_origin_that_is_allowed() {
    let server = Server::start_with(|config| {
        config.edge.allowed_origins = "https://app.example".parse().unwrap();
        config.identity.insecure_no_auth = true;
    })
    .await;
    let socket = format!("/ws?user_id={}", Uuid::new_v4());
    let devices = format!("/users/{}/devices", Uuid::new_v4());
    for (origin, allowed) in [
        ("https://rt.example", true),
        ("https://app.example", true),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let response = server.first_response(&page(&socket, origin)).await;
        let status = if allowed { 101 } else { 403 };
        assert_eq!(response.status, status, "{origin}");
        if !allowed {
            assert_eq!(response.json()["error"]["code"], "origin_not_allowed");
        }
        // A browser withholds from the page an answer that does not name the page's origin.
        let response = server.request(&page(&devices, origin)).await;
        assert_eq!(response.status, 200);
        let named = response.headers.get("access-control-allow-origin");
        assert_eq!(
            named.map(String::as_str),
            allowed.then_some(origin),
            "{origin}"
        );
        assert_eq!(response.headers["vary"], "origin");
    }
    assert!(
        server
            .metric("hushnet_connections_rejected_total{reason=\"origin\"}")
            .await
            > 1.5
    );
}

#[tokio::test]
async fn the_scheme_s_own_port_in_host_makes_no_other_origin() {
    let server = Server::start().await;
    let socket = format!("/ws?user_id={}", Uuid::new_v4());
    for (host, origin, status) in [
        ("localhost:443", "https://localhost", 101),
        ("localhost:80", "http://localhost", 101),
        ("localhost:443", "https://other.example", 403),
        ("localhost:8443", "https://localhost", 403),
    ] {
        let request = page(&socket, origin).replace("Host: rt.example", &format!("Host: {host}"));
        let response = server.first_response(&request).await;
        assert_eq!(response.status, status, "{origin} at {host}");
    }
}

/// A page whose name was made to point to this machine is of the same origin to its browser.
#[tokio::test]
async fn without_identity_only_this_machine_s_names_are_served() {
    let named = Server::start_with(|config| {
        config.edge.allowed_origins = "http://rt.example".parse().unwrap();
        config.edge.console = Some(true);
    })
    .await;
    let proven = Server::start_with(|config| config.identity.auth = AuthMode::Device).await;
    let socket = format!("/ws?user_id={}", Uuid::new_v4());
    let devices = format!("/users/{}/devices", Uuid::new_v4());
    let at = |host: &str, path: &str| {
        page(path, &format!("http://{host}"))
            .replace("rt.example\r\nOrigin", &format!("{host}\r\nOrigin"))
    };
    for (host, served) in [
        ("localhost:8080", true),
        ("127.0.0.1", true),
        ("[::1]:8080", true),
        ("rt.example:8080", true),
        ("evil.example:8080", false),
        ("localhost.evil.example", false),
    ] {
        let response = named.first_response(&at(host, &socket)).await;
        assert_eq!(response.status, if served { 101 } else { 403 }, "{host}");
        for path in [&devices, "/metrics", "/console", "/console/facts"] {
            let response = named.request(&at(host, path)).await;
            assert_eq!(
                response.status,
                if served { 200 } else { 403 },
                "{host} {path}"
            );
            if !served {
                assert_eq!(response.json()["error"]["code"], "host_not_allowed");
            }
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(
                named.request(&at(host, path)).await.status,
                200,
                "{host} {path}"
            );
        }
        // Where clients prove who they are, any name is served.
        let response = proven.first_response(&at(host, &socket)).await;
        assert_eq!(response.status, 401, "{host}");
    }
    let refused = "hushnet_connections_rejected_total{reason=\"origin\"}";
    assert!(named.metric(refused).await > 1.5);
}

#[tokio::test]
async fn a_preflight_request_is_answered_with_the_allowed_headers() {
    let server = Server::start_with(|config| {
        config.edge.allowed_origins = "https://app.example".parse().unwrap();
        config.identity.insecure_no_auth = true;
    })
    .await;
    let response = server
        .request(&format!(
            "OPTIONS /messages/pending/{} HTTP/1.1\r\nHost: rt.example\r\n\
             Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n\
             Access-Control-Request-Headers: authorization\r\nConnection: close\r\n\r\n",
            Uuid::new_v4()
        ))
        .await;
    assert_eq!(response.status, 204, "{}", response.body);
    assert_eq!(
        response.headers["access-control-allow-origin"],
        "https://app.example"
    );
    assert!(response.headers["access-control-allow-headers"].contains("authorization"));
    // Without the preflight's headers, OPTIONS is a method like others.
    let plain = "OPTIONS /healthz HTTP/1.1\r\nHost: rt.example\r\nConnection: close\r\n\r\n";
    assert_eq!(server.request(plain).await.status, 405);
}

#[tokio::test]
async fn the_operators_have_an_address_of_their_own_if_it_is_set() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let server = Server::start_with(|config| {
        config.edge.metrics_listen = Some(address);
        config.edge.console = Some(true);
        config.edge.allowed_origins = "http://rt.example".parse().unwrap();
    })
    .await;
    let elsewhere = server.get("/metrics").await;
    assert_eq!(elsewhere.status, 404);
    assert_eq!(elsewhere.json()["error"]["code"], "metrics_not_served");
    for (host, path, status) in [
        ("localhost", "/metrics", 200),
        ("127.0.0.1:9090", "/metrics", 200),
        ("rt.example", "/metrics", 200),
        ("localhost", "/healthz", 200),
        ("localhost", "/readyz", 200),
        ("localhost", "/ws", 404),
        // The page's own address has the WebSocket that it opens.
        ("localhost", "/console", 404),
        ("evil.example", "/metrics", 403),
        ("evil.example", "/healthz", 200),
        ("evil.example", "/readyz", 200),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = hushnet_testkit::http::request(address, &request)
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{host} {path}: {}", answer.body);
        if status == 403 {
            assert_eq!(answer.json()["error"]["code"], "host_not_allowed");
            assert!(answer.body.contains("--metrics-listen"), "{}", answer.body);
        }
    }
}

/// Where clients prove an identity, what has none is served only where the operator has said so.
#[tokio::test]
async fn with_identity_the_metrics_and_the_console_are_served_where_an_operator_said_so() {
    let start = async |metrics, console, with_identity| {
        Server::start_with(|config| {
            config.edge.metrics = metrics;
            config.edge.console = console;
            if with_identity {
                config.identity.auth = AuthMode::Device;
            }
        })
        .await
    };
    for (metrics, console, with_identity, of_metrics, of_console) in [
        (None, None, true, 404, 404),
        (Some(false), Some(false), true, 404, 404),
        (Some(true), Some(true), true, 200, 200),
        (None, None, false, 200, 404),
        (Some(false), Some(true), false, 404, 200),
    ] {
        let server = start(metrics, console, with_identity).await;
        let answer = server.get("/metrics").await;
        assert_eq!(answer.status, of_metrics, "{}", answer.body);
        if of_metrics == 404 {
            assert_eq!(answer.json()["error"]["code"], "metrics_not_served");
            for setting in ["--metrics-listen", "--metrics=true"] {
                assert!(answer.body.contains(setting), "{}", answer.body);
            }
        }
        for path in ["/console", "/console/facts", "/console/console.js"] {
            let answer = server.get(path).await;
            assert_eq!(answer.status, of_console, "{path}: {}", answer.body);
            if of_console == 404 {
                assert_eq!(answer.json()["error"]["code"], "console_not_served");
                assert!(answer.body.contains("--console=true"), "{}", answer.body);
            }
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
    }
}

/// The forwarded address counts: it may have one connection, and a second one is refused.
#[tokio::test]
async fn a_trusted_proxy_names_the_client_s_address() {
    let server = Server::start_unready(crate::support::Database::migrated().await, |config| {
        config.edge.proxy_protocol = true;
        config.identity.insecure_no_auth = true;
        config.limits.trusted_proxies = "127.0.0.1".parse().unwrap();
        config.limits.unlimited_addresses = "".parse().unwrap();
        config.limits.connections_per_address_max = 1;
    });
    let v1 = |client: &str| format!("PROXY TCP4 {client} 192.0.2.1 1000 80\r\n").into_bytes();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([198, 51, 100, 3, 192, 0, 2, 1, 3, 232, 0, 80]);
    let mut open = Vec::new();
    let mut ask = async |beginning: &[u8]| {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // In two pieces: the server waits for the rest.
        let (first, rest) = beginning.split_at(beginning.len().min(10));
        // The server may close after the first.
        let _ = stream.write_all(first).await;
        tokio::task::yield_now().await;
        let _ = stream.write_all(rest).await;
        let path = format!("/ws?user_id={}", Uuid::new_v4());
        let request = page(&path, "http://rt.example");
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        let read = soon("an answer", stream.read_exact(&mut answer)).await;
        open.push(stream);
        read.map_or(String::new(), |_| {
            String::from_utf8_lossy(&answer).into_owned()
        })
    };
    assert_eq!(ask(&v1("198.51.100.1")).await, "HTTP/1.1 101");
    assert_eq!(ask(&v1("198.51.100.1")).await, "HTTP/1.1 429");
    assert_eq!(ask(&v1("198.51.100.2")).await, "HTTP/1.1 101");
    assert_eq!(ask(&v2).await, "HTTP/1.1 101");
    assert_eq!(ask(&v2).await, "HTTP/1.1 429");
    // The same client, with extensions.
    v2[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    v2.resize(16 + usize::from(u16::MAX), 4);
    assert_eq!(ask(&v2).await, "HTTP/1.1 429");
    // A connection without the proxy's header is closed.
    assert_eq!(ask(b"").await, "");
    assert_eq!(ask(b"PROXY nonsense\r\n").await, "");
}

/// From any other peer the proxy's header is not HTTP.
#[tokio::test]
async fn a_proxy_that_is_not_trusted_is_refused() {
    let server = Server::start_with(|config| config.edge.proxy_protocol = true).await;
    let request = "PROXY TCP4 198.51.100.1 192.0.2.1 1000 80\r\nGET /healthz HTTP/1.1\r\n\r\n";
    assert_eq!(server.request(request).await.status, 400);
}
