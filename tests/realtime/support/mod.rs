//! A cluster for all tests, a database for each test, and the service run by `app::run` in this
//! process.
//!
//! Nothing here waits for a time. Tests wait for conditions, with a deadline of minutes.

mod client;
mod database;
mod pooled;
mod pooler;
mod server;
mod tls_database;

pub use hushnet_testkit::application::{
    User, add_chat, add_device, add_user, insert_message, notify, try_insert_message,
};
pub use hushnet_testkit::client::Client;
pub use hushnet_testkit::database::{connect, execute};
pub use hushnet_testkit::http::Response;
pub use hushnet_testkit::wait::{deadline, soon, until};

pub use self::client::{client_on, connect_client};
pub use self::database::{Database, REPLICATION, cluster};
pub use self::pooled::skips;
pub use self::pooler::Pooler;
pub use self::server::Server;
pub use self::tls_database::{PASSWORD, ROLE, TlsDatabase};
