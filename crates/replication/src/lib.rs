//! A client's end of PostgreSQL's logical replication: one connection that makes a temporary slot and then receives the
//! changes of a publication, in the order of commits.
//!
//! Knows nothing of the service. Framing, SCRAM and MD5 are those of `postgres-protocol`; TLS is verified as sqlx does
//! it. Starts no task and has no timer: whoever uses it bounds each wait. What PostgreSQL sends is held up to
//! [`Endpoint::message_bytes_max`] and no further.

mod connection;
mod endpoint;
mod error;
mod login;
mod open;
mod pgoutput;
mod stream;
mod tls;
mod transport;

pub use self::connection::{Connection, Row};
pub use self::endpoint::{Endpoint, Tls, TlsMode};
pub use self::error::{Error, ServerError};
pub use self::open::open;
pub use self::pgoutput::{Change, Relation, Value};
pub use self::stream::{Received, Stream};
