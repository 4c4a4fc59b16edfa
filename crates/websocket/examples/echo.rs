//! Sends each message back. `make conformance` holds it against the cases of the Autobahn test suite.
//!
//!     cargo run --package hushnet-websocket --example echo -- 127.0.0.1:9001

use std::convert::Infallible;
use std::io;

use hushnet_websocket::{
    Close, Ended, Frame, Handshake, Socket, SocketEvent, SocketLimits, Violation,
};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// The suite's longest message has 16 MiB.
const LIMITS: SocketLimits = SocketLimits {
    frame_bytes_max: 17 << 20,
    write_buffer_bytes_max: 64 << 10,
};

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        tokio::spawn(connection);
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let response = match Handshake::parse(request.headers()) {
        Ok(handshake) => handshake.response(None),
        Err(error) => {
            let mut response = Response::new(error.to_string());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(response);
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            echo(upgraded).await;
        }
    });
    Ok(response)
}

async fn echo(upgraded: Upgraded) {
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return;
    };
    let mut socket = Socket::new(parts.io.into_inner(), &parts.read_buf, LIMITS);
    let ended = loop {
        let reading = !socket.is_writing();
        match socket.next_event(reading).await {
            SocketEvent::Text(text) => socket.queue(Frame::text(&text)),
            SocketEvent::Binary(bytes) => socket.queue(Frame::binary(&bytes)),
            SocketEvent::Alive | SocketEvent::Flushed => {}
            SocketEvent::Ended(ended) => break ended,
        }
    };
    socket.close(close(ended)).await;
}

fn close(ended: Ended) -> Close {
    let (code, reason) = match ended {
        Ended::ByPeer => return Close::Answer,
        Ended::ByNetwork => return Close::Abort,
        Ended::ByViolation(Violation::Protocol) => (1002, "protocol"),
        Ended::ByViolation(Violation::TooBig) => (1009, "too_big"),
        Ended::ByViolation(Violation::NotUtf8) => (1007, "malformed"),
    };
    Close::Start { code, reason }
}
