//! From the listening socket to a connection that speaks HTTP.

mod accept;
mod in_turn;
mod peer;
mod proxy_protocol;
mod tls;
mod transport;

pub use self::accept::{Accepting, adopt, bind, serve};
pub(crate) use self::accept::{REQUEST_CONNECTIONS_MAX, REQUEST_HEAD_BYTES_MAX};
pub(crate) use self::peer::{Headers, Peer, Place, client_address};
pub use self::tls::Tls;
pub use self::transport::Transport;
