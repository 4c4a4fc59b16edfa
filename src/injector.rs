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
    pub struct Injected;

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
    use tokio::sync::mpsc;

    /// What is read at once.
    const PIECE_BYTES: usize = 64 * 1024;
    /// Pieces that wait for the listener.
    const PIECES_MAX: usize = 1;

    /// Lines that wait to be routed.
    #[derive(Debug, Default)]
    pub struct Injected(Option<mpsc::Receiver<String>>);

    impl Injected {
        /// The next whole lines. Cancel-safe.
        pub async fn next(&mut self) -> String {
            match &mut self.0 {
                Some(pieces) => match pieces.recv().await {
                    Some(piece) => piece,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        }
    }

    /// Listens at the address, says at which on standard output, and takes lines from whoever connects.
    ///
    /// # Errors
    /// The operating system's, such as an address in use.
    pub fn inject_from(address: SocketAddr) -> io::Result<(Injected, impl Future<Output = ()>)> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket)?;
        println!("injecting on {}", listener.local_addr()?);
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let serve = async move {
            // One after another: a benchmark has one.
            while let Ok((stream, _)) = listener.accept().await {
                // The benchmark has ended, or broke off.
                let _ = take_lines(stream, &sender).await;
            }
        };
        Ok((Injected(Some(receiver)), serve))
    }

    async fn take_lines(mut stream: TcpStream, to: &mpsc::Sender<String>) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(2 * PIECE_BYTES);
        while stream.read_buf(&mut bytes).await? > 0 {
            let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let mut rest = Vec::with_capacity(2 * PIECE_BYTES);
            rest.extend_from_slice(&bytes[end + 1..]);
            bytes.truncate(end);
            let lines = String::from_utf8(std::mem::replace(&mut bytes, rest));
            let lines = lines.map_err(io::Error::other)?;
            to.send(lines).await.map_err(io::Error::other)?;
        }
        Ok(())
    }
}
