//! Where clients and operators come in.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::descriptors::Descriptors;
use super::error::RunError;
use super::supervisor::{Supervisor, Task};
use crate::config::Config;
use crate::edge::{self, Accepting, Listener, Tls};
use crate::http::{self, Api};

/// Accepts clients on the listener, and operators on the address of the metrics if they have one. No more are
/// accepted when the token that is returned is cancelled.
pub(super) fn serve(
    config: &Config,
    descriptors: Descriptors,
    api: &Api,
    listener: Listener,
    supervisor: &mut Supervisor,
) -> Result<CancellationToken, RunError> {
    let tls = Tls::new(&config.edge)?.map(Arc::new);
    if let Some(tls) = tls.clone() {
        let reload = async move { tls.reload_on_hangup().await };
        supervisor.spawn(Task::TlsReload, reload);
    }
    let longest = api
        .shared
        .timeouts
        .write_of(config.event_bytes_max as usize);
    edge::outlast_writes(&listener, longest).map_err(|cause| RunError::Listen {
        address: config.listen,
        cause,
    })?;
    let accepting = Accepting {
        connections_max: descriptors.sockets + descriptors.requests,
        request_head_timeout: config.request_head_timeout(),
        write_timeout: api.shared.timeouts.write_timeout,
        proxy_protocol: config.edge.proxy_protocol,
        trusted_proxies: config.limits.trusted_proxies.clone(),
        tls,
        limits: Arc::clone(&api.shared.limits),
        metrics: Arc::clone(&api.shared.metrics),
        stop: CancellationToken::new(),
    };
    let stop = accepting.stop.clone();
    if let Some(address) = config.edge.metrics_listen {
        let listener = edge::bind(address).map_err(|cause| RunError::Listen { address, cause })?;
        // A page whose name was made to point to this machine could read what is served here without an identity.
        let any_host = !address.ip().is_loopback();
        let accepting = Accepting {
            connections_max: descriptors.requests,
            proxy_protocol: false,
            tls: None,
            ..accepting.clone()
        };
        for acceptor in edge::acceptors(listener, http::operator_routes(api, any_host), accepting) {
            supervisor.spawn(Task::OperatorAcceptor, acceptor);
        }
    }
    for acceptor in edge::acceptors(listener, http::routes(api), accepting) {
        supervisor.spawn(Task::Acceptor, acceptor);
    }
    Ok(stop)
}
