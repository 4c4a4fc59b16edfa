//! Why a connection ended.

use enum_map::Enum;
use hushnet_websocket::{Close, Ended, Violation};
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

impl From<Ended> for Closed {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::ByPeer => Self::ByClient,
            Ended::ByNetwork => Self::ByNetwork,
            Ended::ByViolation(Violation::Protocol) => Self::ByServer(CloseCode::Protocol),
            Ended::ByViolation(Violation::TooBig) => Self::ByServer(CloseCode::TooBig),
            Ended::ByViolation(Violation::NotUtf8) => Self::ByServer(CloseCode::Malformed),
        }
    }
}

impl From<Closed> for Close {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::ByNetwork => Self::Abort,
            Closed::ByClient => Self::Answer,
            Closed::ByServer(code) => Self::Start {
                code: code.code(),
                reason: code.told_reason(),
            },
        }
    }
}
