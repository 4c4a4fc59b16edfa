//! The service as a program: started, awaited, asked, stopped.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::http;
use crate::program::Program;
use crate::wait::until;

/// The line with which the service says where it serves.
const SERVING: &str = "serving on http://";

/// A running service; killed when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Its process and its output.
    pub program: Program,
}

impl Server {
    /// Starts the command and waits until the service serves. It may not be ready yet.
    pub async fn start(command: &mut Command) -> Self {
        let mut program = Program::start(command);
        Self {
            address: program.output.address_after(SERVING).await,
            program,
        }
    }

    /// Where the service serves.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the service is ready.
    pub async fn until_ready(&self) {
        until_ready(self.address).await;
    }

    /// The value of a series, named with its labels as the exposition has them.
    pub async fn metric(&self, series: &str) -> f64 {
        let response = http::get(self.address, "/metrics").await.unwrap();
        let value = response.metric(series);
        value.unwrap_or_else(|| panic!("no series {series} in {response:?}"))
    }
}

/// Waits until the service at this address is ready.
pub async fn until_ready(address: SocketAddr) {
    until("the service is ready", async || {
        let answer = http::get(address, "/readyz").await;
        answer.is_ok_and(|response| response.status == 200)
    })
    .await;
}
