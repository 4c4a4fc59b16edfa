//! Notifications from a socket, for benchmarks that leave PostgreSQL out.
//!
//! Built only with the feature `injector`, which no released program has: any client that reaches the
//! address can send any event to any user. A connection sends payloads of notifications, one a line. They
//! are handled like those on `messages_channel`, from the parser on. Without the feature none ever comes.

#[cfg(not(feature = "injector"))]
pub use self::absent::Injected;
#[cfg(feature = "injector")]
pub use self::present::{Injected, inject_from};

#[cfg(not(feature = "injector"))]
mod absent {
    /// A source without notifications.
    #[derive(Debug, Default)]
    pub struct Injected {}

    impl Injected {
        /// Never ready.
        #[allow(clippy::unused_self, reason = "the same signature as with the feature")]
        pub async fn next(&mut self) -> String {
            std::future::pending().await
        }
    }
}

#[cfg(feature = "injector")]
mod present {
    use std::io;
    use std::net::SocketAddr;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use crate::output;

    /// Bytes that are read at once.
    const PIECE_BYTES: usize = 64 * 1024;

    /// Lines from one connection after another: a benchmark has one.
    #[derive(Debug, Default)]
    pub struct Injected {
        listener: Option<TcpListener>,
        stream: Option<TcpStream>,
        bytes: Vec<u8>,
    }

    impl Injected {
        /// The next whole lines. Cancel-safe.
        pub async fn next(&mut self) -> String {
            let Some(listener) = &self.listener else {
                return std::future::pending().await;
            };
            loop {
                let Some(stream) = &mut self.stream else {
                    self.stream = listener.accept().await.ok().map(|(stream, _)| stream);
                    continue;
                };
                self.bytes.reserve(PIECE_BYTES);
                // The benchmark has ended or was stopped.
                if stream.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
                    (self.stream, self.bytes) = (None, Vec::new());
                    continue;
                }
                let Some(end) = self.bytes.iter().rposition(|byte| *byte == b'\n') else {
                    continue;
                };
                let rest = self.bytes.split_off(end + 1);
                return String::from_utf8(std::mem::replace(&mut self.bytes, rest))
                    .unwrap_or_default();
            }
        }
    }

    /// Listens at the address, and prints it on standard output.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub fn inject_from(address: SocketAddr) -> io::Result<Injected> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        let address = listener.local_addr()?;
        output::announce(format_args!("injecting on {address}"))?;
        Ok(Injected {
            listener: Some(listener),
            ..Injected::default()
        })
    }
}
