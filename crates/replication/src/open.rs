//! A new session: the socket, TLS where it is wanted, and the proof of who it is.

use tokio::net::{TcpStream, UnixStream};

use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::login::log_in;
use crate::tls;
use crate::transport::Transport;

/// Connects, and proves who it is.
///
/// # Errors
/// Why there is no session.
pub async fn open(endpoint: &Endpoint) -> Result<Connection, Error> {
    let transport: Box<dyn Transport> = if let Some(directory) = &endpoint.socket {
        let path = directory.join(format!(".s.PGSQL.{}", endpoint.port));
        Box::new(UnixStream::connect(path).await?)
    } else {
        let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        socket.set_nodelay(true)?;
        tls::agree(socket, &endpoint.tls, &endpoint.host).await?
    };
    let mut connection = Connection::new(transport, endpoint.message_bytes_max);
    log_in(&mut connection, endpoint).await?;
    Ok(connection)
}
