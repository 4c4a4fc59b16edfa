//! The listening socket, and the options that its connections inherit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait in the kernel until they are accepted; the kernel admits no more than
/// `net.core.somaxconn`. The client of one beyond that tries again after a second.
const ACCEPT_BACKLOG: i32 = 65_535;
/// What the kernel holds for a peer that does not read; left alone, it would grow to megabytes.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// A peer that has acknowledged nothing for this long is gone, whatever state its WebSocket is in. One that lives but does
/// not read has a full window, and the kernel counts that the same.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);
/// Until the kernel ends a connection whose write has taken as long as it may: the server's own close comes first.
const USER_TIMEOUT_MARGIN: Duration = Duration::from_secs(15);
const TCP_KEEPALIVE: Duration = Duration::from_mins(1);

/// A listening socket whose connections send small frames without delay and end when their peer is gone.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Whether another process has the socket too.
    is_shared: bool,
}

impl Listener {
    /// The address that it listens on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether what waits in the kernel's queue is left to another process when this one ends; else it is reset.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept().await
    }

    /// The socket, for what is asked without waiting.
    pub(super) fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.socket)
    }
}

/// A listener on this address.
///
/// # Errors
/// The operating system's, such as an address in use.
pub fn bind(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    listener(socket.into(), false)
}

/// A listener on a socket that listens already, and that another process has too.
///
/// # Errors
/// The operating system's.
pub fn adopt(socket: std::net::TcpListener) -> io::Result<Listener> {
    listener(socket, true)
}

fn listener(socket: std::net::TcpListener, is_shared: bool) -> io::Result<Listener> {
    let options = SockRef::from(&socket);
    options.set_nonblocking(true)?;
    options.set_tcp_nodelay(true)?;
    options.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    let socket = TcpListener::from_std(socket)?;
    Ok(Listener { socket, is_shared })
}

/// Has the kernel wait for a peer longer than a write to it may take.
///
/// # Errors
/// The operating system's.
#[cfg_attr(
    not(target_os = "linux"),
    expect(unused_variables, reason = "no such option")
)]
pub fn outlast_writes(listener: &Listener, longest: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let timeout = TCP_USER_TIMEOUT.max(longest + USER_TIMEOUT_MARGIN);
        listener.socket().set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_waits_longer_than_a_write_may_take() {
        for (longest, least) in [(10, 45), (50, 51), (3_000, 3_001)]
            .map(|(longest, least)| (Duration::from_secs(longest), Duration::from_secs(least)))
        {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            outlast_writes(&listener, longest).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (_client, accepted) = tokio::join!(client, listener.accept());
            let (socket, _) = accepted.unwrap();
            let timeout = SockRef::from(&socket).tcp_user_timeout().unwrap();
            assert!(timeout.unwrap() >= least, "{timeout:?} for {longest:?}");
        }
    }
}
