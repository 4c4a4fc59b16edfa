//! From the listening socket to a request: accepting, the PROXY protocol, TLS, and the client's address.
//!
//! A request leaves here with three extensions: its `Headers`, its `ClientAddress`, and the
//! `ConnectionPermit` of its connection.

mod acceptor;
mod client_address;
mod connection_permit;
mod http_server;
mod listener;
mod preamble;
mod proxy_protocol;
mod round_robin;
mod tls;
mod transport;

pub use self::acceptor::{Accepting, acceptors};
pub(crate) use self::acceptor::{FIRST_REQUEST, REQUEST_CONNECTIONS_MAX};
pub(crate) use self::client_address::ClientAddress;
pub(crate) use self::connection_permit::ConnectionPermit;
pub(crate) use self::http_server::{Headers, REQUEST_HEAD_BYTES_MAX};
pub use self::listener::{Listener, adopt, bind, outlast_writes};
pub use self::tls::Tls;
pub use self::transport::Transport;
