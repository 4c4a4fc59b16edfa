//! Why a connection ended.

use super::CloseCode;

/// Why a connection ended: the label `reason` of `hushnet_connections_closed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The client closed it, with a closing handshake or by just going.
    ByClient,
    /// The network broke it.
    ByNetwork,
    /// The server closed it with this code.
    ByServer(CloseCode),
}

impl Closed {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::ByClient, Self::ByNetwork].into_iter().chain(
            CloseCode::ALL
                .into_iter()
                .filter(|code| *code != CloseCode::Normal)
                .map(Self::ByServer),
        )
    }

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByClient => "client",
            Self::ByNetwork => "network",
            Self::ByServer(code) => code.reason(),
        }
    }
}
