//! TCP and TLS.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::error::{BusCause, BusError};
use crate::tls::TlsSettings;
use crate::url::Host;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// What a protocol is spoken over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to the first of the host's addresses that answers. Each gets an equal share of the time that is left, so that
/// one whose network loses everything does not keep the others from being tried.
pub(crate) async fn connect(host: &Host, deadline: Instant) -> Result<TcpStream, BusError> {
    let unreachable = |detail: &dyn std::fmt::Display| {
        BusError::new(BusCause::Unreachable, format!("{host}: {detail}"))
    };
    let addresses: Vec<SocketAddr> =
        match timeout_at(deadline, lookup_host((host.name.as_str(), host.port))).await {
            Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(_) => return Err(unreachable(&"the name was not resolved in time")),
        };
    let mut failure = unreachable(&"the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left.div_f64((addresses.len() - tried) as f64);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let nodelay = socket.set_nodelay(true);
                return nodelay
                    .map(|()| socket)
                    .map_err(|error| unreachable(&error));
            }
            Ok(Err(error)) => failure = unreachable(&error),
            Err(_) => failure = unreachable(&format!("{address} does not answer")),
        }
    }
    Err(failure)
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
