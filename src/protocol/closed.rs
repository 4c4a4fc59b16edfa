//! Why a connection ended.

use enum_map::Enum;
use strum::IntoStaticStr;

use super::CloseCode;

/// Why a connection ended: the label `reason` of `hushnet_connections_closed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, IntoStaticStr)]
pub enum Closed {
    /// The client closed it: with a closing handshake, or by ending its TCP connection.
    #[strum(serialize = "client")]
    ByClient,
    /// The network broke it.
    #[strum(serialize = "network")]
    ByNetwork,
    /// The server closed it with this code.
    #[strum(transparent)]
    ByServer(CloseCode),
}
