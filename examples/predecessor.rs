//! HushNet's own realtime server over real sockets: what `make bench` shows the difference to.
//!
//!     cargo run --release --example predecessor -- --listen 127.0.0.1:0 --inject 127.0.0.1:0
//!
//! How an event finds its connections is `benches/predecessor`: one channel of 100 for all, from which
//! every connection takes a copy of every event. Around it is what such a server has: tokio's runtime,
//! tungstenite's handshake and socket, and the service's allocator. tungstenite's buffers are made
//! small, since their default of 128 KiB a connection would flatter the service.
//!
//! Whoever connects to the second address sends notifications, one on each line, as PostgreSQL would
//! deliver them. Fails by ending with an error when it cannot listen or accept. A connection that
//! falls behind by more than the channel holds ends, as it did.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use predecessor::RealtimeEvent;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{Receiver, Sender};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

#[path = "../benches/predecessor/mod.rs"]
mod predecessor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The system takes less if `net.core.somaxconn` says so.
const BACKLOG: i32 = 65_535;
const READ_BUFFER_BYTES: usize = 4 << 10;
const INJECTOR_BUFFER_BYTES: usize = 64 << 10;

#[derive(Parser)]
struct Arguments {
    /// Where clients connect
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where notifications come from
    #[arg(long, default_value = "127.0.0.1:0")]
    inject: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (listener, injection) = (bind(arguments.listen)?, bind(arguments.inject)?);
    println!("serving on http://{}", listener.local_addr()?);
    println!("injecting on {}", injection.local_addr()?);
    std::io::stdout().flush()?;
    let events = predecessor::channel();
    tokio::try_join!(
        accept(&listener, &events),
        accept_injectors(&injection, &events)
    )?;
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Linux hands it down to the sockets that are accepted.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("cannot listen on {address}"))
}

async fn accept(listener: &TcpListener, events: &Sender<RealtimeEvent>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        tokio::spawn(serve(stream, events.clone()));
    }
}

async fn accept_injectors(
    injection: &TcpListener,
    events: &Sender<RealtimeEvent>,
) -> anyhow::Result<()> {
    loop {
        let (stream, _) = injection.accept().await.context("cannot accept")?;
        tokio::spawn(inject(stream, events.clone()));
    }
}

/// Puts each line that is an event into the channel.
async fn inject(stream: TcpStream, events: Sender<RealtimeEvent>) {
    let stream = BufReader::with_capacity(INJECTOR_BUFFER_BYTES, stream);
    let mut lines = stream.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(event) = RealtimeEvent::parse(&line) {
            // An error says that nobody is connected.
            let _ = events.send(event);
        }
    }
}

/// One connection, until either side of it ends.
async fn serve(stream: TcpStream, events: Sender<RealtimeEvent>) {
    // Apart, so that the handshake's state does not stay for as long as the connection.
    let Some((user_id, socket)) = Box::pin(shake_hands(stream)).await else {
        return;
    };
    let (sink, stream) = socket.split();
    // Two tasks, so that an event wakes and polls the one that waits for it and nothing else.
    let mut writing = tokio::spawn(write(sink, events.subscribe(), user_id));
    tokio::select! {
        _ = &mut writing => {}
        () = read(stream) => writing.abort(),
    }
}

async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    mut receiver: Receiver<RealtimeEvent>,
    user_id: String,
) {
    while let Ok(event) = receiver.recv().await {
        if let Some(frame) = event.frame_for(&user_id)
            && sink.send(Message::text(frame)).await.is_err()
        {
            return;
        }
    }
}

/// Reads until the end; tungstenite answers pings and the closing on the way.
async fn read(mut stream: SplitStream<WebSocketStream<TcpStream>>) {
    while let Some(Ok(_)) = stream.next().await {}
}

/// The user that the request names, and the socket.
async fn shake_hands(stream: TcpStream) -> Option<(String, WebSocketStream<TcpStream>)> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    let mut user_id = None;
    #[expect(
        clippy::result_large_err,
        reason = "tungstenite says what a refusal is"
    )]
    let callback = |request: &Request, response: Response| {
        user_id = asked_for(request);
        if user_id.is_some() {
            Ok(response)
        } else {
            Err(refusal())
        }
    };
    let socket = accept_hdr_async_with_config(stream, callback, Some(config)).await;
    Some((user_id?, socket.ok()?))
}

fn refusal() -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

fn asked_for(request: &Request) -> Option<String> {
    let query = request.uri().query()?;
    let user_id = query
        .split('&')
        .find_map(|part| part.strip_prefix("user_id="))?;
    Some(user_id.to_owned())
}
