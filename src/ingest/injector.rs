//! Notifications from a socket, for benchmarks that leave PostgreSQL out.
//!
//! Only there with the feature `injector`, which no released program has: whoever reaches the address can
//! send anything to anybody. A connection sends what would be notifications' payloads, each on a line; they
//! take the way of those on `messages_channel`, from the parse on. Without the feature nothing ever comes.

#[cfg(not(feature = "injector"))]
pub use self::absent::Injected;
#[cfg(feature = "injector")]
pub use self::present::{Injected, inject_from};

#[cfg(not(feature = "injector"))]
mod absent {
    /// Nothing.
    #[derive(Debug, Default)]
    pub struct Injected {}

    impl Injected {
        /// Never ready.
        #[allow(clippy::unused_self, reason = "the other one has something to take")]
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

    /// What is read at once.
    const PIECE_BYTES: usize = 64 * 1024;

    /// Lines from whoever is connected, one after another: a benchmark has one connection.
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
                // The benchmark has ended, or broke off.
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

    /// Listens at the address, and says at which on standard output.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub fn inject_from(address: SocketAddr) -> io::Result<Injected> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        println!("injecting on {}", listener.local_addr()?);
        Ok(Injected {
            listener: Some(listener),
            ..Injected::default()
        })
    }
}
