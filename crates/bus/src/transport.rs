//! TCP and TLS.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::Error as TlsError;
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
    deadline: Instant,
) -> Result<Box<dyn Transport>, BusError> {
    let failed =
        |detail: &dyn std::fmt::Display| BusError::new(BusCause::Tls, format!("{host}: {detail}"));
    let name = ServerName::try_from(host.name.clone()).map_err(|error| failed(&error))?;
    let connector = tls.connector().await?;
    match timeout_at(deadline, connector.connect(name, socket)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(failed(&error)),
        // A Redis without TLS waits for the end of what it takes for a line.
        Err(_) => Err(failed(
            &"no answer to the TLS handshake: the server does not speak TLS, or is stopped",
        )),
    }
}

/// Whether the server answers in TLS, whatever its certificate.
pub(crate) async fn speaks_tls(host: &Host, deadline: Instant) -> bool {
    let ask = async {
        let socket = connect(host, deadline).await.ok()?;
        let name = ServerName::try_from(host.name.clone()).ok()?;
        let connector = TlsSettings::default().connector().await.ok()?;
        Some(connector.connect(name, socket).await)
    };
    match timeout_at(deadline, ask).await {
        Ok(Some(Ok(_))) => true,
        Ok(Some(Err(error))) => {
            let error = error.get_ref().and_then(|error| error.downcast_ref());
            matches!(error, Some(error) if !matches!(error, TlsError::InvalidMessage(_)))
        }
        Ok(None) | Err(_) => false,
    }
}
