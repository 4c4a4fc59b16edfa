//! The limit of open files: each connection needs one.

use hushnet_realtime::app::{Descriptors, RunError};
use hushnet_realtime::config::Config;

/// Raises the limit of open files as far as the settings need and the system lets us. Warns if that is not enough
/// for `connections_max`.
///
/// # Errors
/// [`RunError::NoDescriptors`] when nothing is left for clients.
pub(super) fn raise_limit(config: &Config) -> Result<(), RunError> {
    let wanted = Descriptors::wanted(config);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => {
            let admitted = Descriptors::of(config, limit)?;
            if admitted.is_short {
                tracing::warn!(
                    event = "descriptor_limit_low",
                    limit,
                    wanted,
                    connections_max = config.limits.connections_max,
                    connections_admitted = admitted.sockets,
                    remedy = "raise the limit with ulimit -n, or LimitNOFILE= under systemd, or lower connections_max",
                );
            }
            widen_table(limit.min(wanted));
        }
        Err(error) => tracing::warn!(event = "descriptor_limit_unknown", %error),
    }
    Ok(())
}

/// Makes the kernel's table of our descriptors as wide as it can become, at 8 bytes each. The kernel doubles a full
/// table, and whoever opens the next file waits for that; here nobody waits yet.
fn widen_table(descriptors: u64) {
    let last = i32::try_from(descriptors).unwrap_or(i32::MAX) - 1;
    // The table stays wide after this descriptor is closed.
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), last) {
        tracing::warn!(event = "descriptor_table_not_widened", %error);
    }
}
