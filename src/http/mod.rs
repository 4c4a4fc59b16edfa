//! Every route.

mod api;
mod console;
mod credentials;
mod handshake;
mod origin;
mod reply;
mod routes;
mod upgrade;

pub use self::api::{ANSWERS_MAX, Api, Console};
pub use self::handshake::websockets;
pub use self::routes::{operator_routes, routes};
