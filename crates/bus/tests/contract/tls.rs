//! TLS: who is trusted, and what is said where only one side speaks it.

use std::fs;
use std::path::PathBuf;

use hushnet_bus::{BusCause, TlsSettings};
use hushnet_devbus::{BrokerKind, BrokerOptions, BrokerServer, BrokerTls};
use tempfile::TempDir;

use crate::node::{KINDS, Node, fails_again_and_again, server};

/// A server with a certificate for `localhost`, which signs itself.
struct Secure {
    server: BrokerServer,
    certificate: PathBuf,
    _directory: TempDir,
}

impl Secure {
    async fn start(kind: BrokerKind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = directory.path().join("certificate.pem");
        let key = directory.path().join("key.pem");
        fs::write(&certificate, signed.cert.pem()).unwrap();
        fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
        let options = BrokerOptions {
            configuration: String::new(),
            tls: Some(BrokerTls {
                certificate: certificate.clone(),
                key,
            }),
        };
        Self {
            server: BrokerServer::start(kind, options).await.unwrap(),
            certificate,
            _directory: directory,
        }
    }

    fn trusted(&self) -> TlsSettings {
        TlsSettings {
            root_certificate: Some(self.certificate.clone()),
        }
    }
}

fn url(kind: BrokerKind, host: &str, server: &BrokerServer) -> String {
    let scheme = match kind {
        BrokerKind::Redis => "rediss",
        BrokerKind::Nats => "tls",
    };
    format!("{scheme}://{host}:{}", server.port())
}

#[tokio::test]
async fn a_server_is_trusted_by_its_certificate_and_its_name() {
    for kind in KINDS {
        let secure = Secure::start(kind).await;
        let good = url(kind, "localhost", &secure.server);
        let mut node = Node::at(&good, secure.trusted());
        node.bus.subscribe(crate::node::subject("hushnet.a"));
        node.connected().await;
        node.next_subscribed().await;
        let payload = bytes::Bytes::from(vec![1; 1_000_000]);
        let name = crate::node::subject("hushnet.a");
        for _ in 0..20 {
            node.bus.publish(&name, payload.clone()).ok();
            assert!(node.message().await.1 == payload);
        }
        let unknown = Node::at(&good, TlsSettings::default());
        let other_name = Node::at(&url(kind, "127.0.0.1", &secure.server), secure.trusted());
        let missing = TlsSettings {
            root_certificate: Some("/nowhere.pem".into()),
        };
        let no_file = Node::at(&good, missing);
        for mut node in [unknown, other_name, no_file] {
            fails_again_and_again(&mut node, BusCause::Tls).await;
        }
    }
}

#[tokio::test]
async fn a_side_that_speaks_tls_alone_is_called_so() {
    for kind in KINDS {
        let plain = server(kind, "").await;
        let mut node = Node::at(&url(kind, "localhost", &plain), TlsSettings::default());
        fails_again_and_again(&mut node, BusCause::Tls).await;
    }
    let secure = Secure::start(BrokerKind::Redis).await;
    let mut node = Node::new(&secure.server, "");
    let error = node.disconnected().await;
    assert_eq!(error.cause(), BusCause::Tls, "{error}");
    // A NATS server asks for TLS by itself, and gets it.
    let secure = Secure::start(BrokerKind::Nats).await;
    let url = format!("nats://localhost:{}", secure.server.port());
    Node::at(&url, secure.trusted()).connected().await;
    let mut node = Node::at(&url, TlsSettings::default());
    fails_again_and_again(&mut node, BusCause::Tls).await;
}
