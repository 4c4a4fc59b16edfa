//! A node under test, and waiting for what it reports.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hushnet_bus::{Bus, BusCause, BusError, BusEvent, BusEvents, Subject, TlsSettings};
use hushnet_devbus::{BrokerKind, BrokerOptions, BrokerServer};
use tokio::task::JoinHandle;

/// Each wait is for a condition, and fails after this.
pub const DEADLINE: Duration = Duration::from_mins(3);
pub const KINDS: [BrokerKind; 2] = [BrokerKind::Redis, BrokerKind::Nats];

pub struct Node {
    pub bus: Bus,
    pub events: BusEvents,
    pub driver: JoinHandle<()>,
}

pub async fn server(kind: BrokerKind, configuration: &str) -> BrokerServer {
    let options = BrokerOptions {
        configuration: configuration.to_owned(),
        tls: None,
    };
    BrokerServer::start(kind, options).await.unwrap()
}

pub fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

/// The URL's scheme without TLS.
pub fn scheme(kind: BrokerKind) -> &'static str {
    match kind {
        BrokerKind::Redis => "redis",
        BrokerKind::Nats => "nats",
    }
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(DEADLINE, future).await;
    result.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

impl Node {
    /// With the server's port, and what stands before the host.
    pub fn new(server: &BrokerServer, login: &str) -> Self {
        let port = server.port();
        let scheme = scheme(server.kind());
        Self::at(
            &format!("{scheme}://{login}127.0.0.1:{port}"),
            TlsSettings::default(),
        )
    }

    pub fn at(url: &str, tls: TlsSettings) -> Self {
        let (bus, events, driver) = hushnet_bus::open(url.parse().unwrap(), tls);
        let driver = tokio::spawn(driver);
        Self {
            bus,
            events,
            driver,
        }
    }

    /// Connected, and subscribed to the subjects.
    pub async fn subscribed(server: &BrokerServer, subjects: &[&str]) -> Self {
        let mut node = Self::new(server, "");
        for name in subjects {
            node.bus.subscribe(subject(name));
        }
        node.connected().await;
        for _ in subjects {
            node.next_subscribed().await;
        }
        node
    }

    pub async fn next(&mut self) -> BusEvent {
        within("an event", self.events.next()).await
    }

    /// Waits for `Connected`; failed attempts before it are left out.
    pub async fn connected(&mut self) {
        let started = Instant::now();
        loop {
            match self.next().await {
                BusEvent::Connected => return,
                BusEvent::Disconnected(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
                other => panic!("{other:?} before Connected"),
            }
        }
    }

    /// The next event, which is `Subscribed`.
    pub async fn next_subscribed(&mut self) -> Subject {
        match self.next().await {
            BusEvent::Subscribed(subject) => subject,
            other => panic!("{other:?} and not Subscribed"),
        }
    }

    /// Waits for the end of the connection; other events before it are left out.
    pub async fn disconnected(&mut self) -> BusError {
        let started = Instant::now();
        loop {
            if let BusEvent::Disconnected(error) = self.next().await {
                return error;
            }
            assert!(started.elapsed() < DEADLINE, "it goes on");
        }
    }

    /// The next event, which is a message.
    pub async fn message(&mut self) -> (String, Bytes) {
        match self.next().await {
            BusEvent::Message { subject, payload } => (subject.as_str().to_owned(), payload),
            other => panic!("{other:?} and not a message"),
        }
    }

    pub fn publish(&self, name: &str, payload: &'static str) {
        self.bus
            .publish(&subject(name), Bytes::from_static(payload.as_bytes()))
            .unwrap();
    }
}

/// The causes of the next failures, which must all be this one: it tries for ever.
pub async fn fails_again_and_again(node: &mut Node, cause: BusCause) -> BusError {
    let mut last = None;
    for _ in 0..3 {
        let error = node.disconnected().await;
        assert_eq!(error.cause(), cause, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        last = Some(error);
    }
    last.unwrap()
}
