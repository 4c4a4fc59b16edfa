//! TCP and TLS.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::error::{BusCause, BusError};
use crate::tls::TlsSettings;
use crate::url::Host;

/// What a protocol is spoken over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to the first of the host's addresses that answers.
pub(crate) async fn connect(host: &Host, deadline: Instant) -> Result<TcpStream, BusError> {
    let unreachable = |detail: &dyn std::fmt::Display| {
        BusError::new(BusCause::Unreachable, format!("{host}: {detail}"))
    };
    let connecting = TcpStream::connect((host.name.as_str(), host.port));
    let socket = match timeout_at(deadline, connecting).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"no answer in time")),
    };
    socket
        .set_nodelay(true)
        .map_err(|error| unreachable(&error))?;
    Ok(socket)
}

/// Agrees on TLS.
pub(crate) async fn secure(
    socket: TcpStream,
    host: &Host,
    tls: &TlsSettings,
) -> Result<Box<dyn Transport>, BusError> {
    let failed =
        |detail: &dyn std::fmt::Display| BusError::new(BusCause::Tls, format!("{host}: {detail}"));
    let name = ServerName::try_from(host.name.clone()).map_err(|error| failed(&error))?;
    let connector = tls.connector().await?;
    match connector.connect(name, socket).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(failed(&error)),
    }
}
