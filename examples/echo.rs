//! Sends back what it gets, over this service's own handshake and socket: what `make conformance` holds
//! against the Autobahn test suite's cases.
//!
//!     cargo run --example echo -- 127.0.0.1:9001

use std::sync::Arc;
use std::time::Duration;

use hushnet_realtime::config::Config;
use hushnet_realtime::edge::{self, Accepting};
use hushnet_realtime::frame::Frame;
use hushnet_realtime::http;
use hushnet_realtime::limits::Limits;
use hushnet_realtime::metrics::Metrics;
use hushnet_realtime::socket::{Socket, SocketLimits, Step};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The suite's largest message is of 16 MiB.
const LIMITS: SocketLimits = SocketLimits {
    frame_bytes_max: 17 << 20,
    write_buffer_bytes_max: 64 << 10,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = edge::bind(address.as_deref().unwrap_or("127.0.0.1:0").parse()?)?;
    println!("{}", listener.local_addr()?);
    let limits = Config::default().limits;
    let accepting = Accepting {
        connections_max: 1_000,
        request_head_timeout: Duration::from_secs(10),
        proxy_protocol: false,
        trusted_proxies: limits.trusted_proxies.clone(),
        tls: None,
        limits: Arc::new(Limits::new(&limits)),
        metrics: Arc::new(Metrics::new()),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let routes = http::websockets(LIMITS, TaskTracker::new(), echo);
    edge::serve(listener, routes, accepting).await;
    Ok(())
}

async fn echo(mut socket: Socket) {
    loop {
        let reading = !socket.is_writing();
        match socket.step(reading).await {
            Step::Text(text) => socket.queue(Frame::text(&text)),
            Step::Binary(bytes) => socket.queue(Frame::binary(&bytes)),
            Step::Heard | Step::Flushed => {}
            Step::Ended(closed) => return socket.close(closed).await,
        }
    }
}
