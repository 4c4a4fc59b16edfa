//! The address of a database, as sqlx and libpq (psql) both read it.

use std::fmt::Write;
use std::path::Path;

/// The cluster's only superuser. Every user who can open the socket's directory may connect as it,
/// without a password.
pub(crate) const SUPERUSER: &str = "hushnet";
/// Part of the socket's file name only: the server listens on no network.
pub(crate) const PORT: u16 = 5432;

/// Names the port although it is the default: without it, both libraries read the variable PGPORT.
pub(crate) fn url(socket_directory: &Path, port: u16, database: &str) -> String {
    format!(
        "postgres://{SUPERUSER}@localhost:{port}/{}?host={}",
        percent_encode(database),
        percent_encode(&socket_directory.to_string_lossy())
    )
}

/// The file name of a socket in its directory.
pub(crate) fn socket_name(port: u16) -> String {
    format!(".s.PGSQL.{port}")
}

/// Keeps `/`, which a query string may hold and which is easier to read. Encodes `+`, which is a
/// space to sqlx and a plus to libpq.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
                out.push(byte.into());
            } else {
                // Writing into a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_encoded() {
        assert_eq!(
            url(Path::new("/run/a b"), 5433, r#"name+"1""#),
            "postgres://hushnet@localhost:5433/name%2B%221%22?host=/run/a%20b"
        );
    }
}
