//! The database's address: the URL that names it, libpq's variables, and the password file.
//!
//! `parameters` is the table of what libpq knows and what the service makes of each. `url` takes a URL apart,
//! `address` joins it with the variables as libpq does, and `password_file` looks up the password. No part of a URL
//! and no value of a variable is in an error: it may be of the password.

mod address;
mod parameters;
mod password_file;
#[cfg(test)]
mod tests;
mod url;

pub use self::address::{MESSAGE_BYTES_MAX, NotUsed};
pub use self::parameters::is_variable;
#[cfg(test)]
pub(super) use self::parameters::{PARAMETERS, Parameter, Treatment};
pub use self::url::{DatabaseUrl, DatabaseUrlParser};
