//! Descriptors of open files: each connection needs one.

use hushnet_realtime::config::Config;

/// Descriptors for what is not a client's connection.
const SPARE: u64 = 1_024;

/// Raises the limit of open files as far as the settings need and the system lets us.
pub(super) fn raise_limit(config: &Config) {
    let wanted = u64::from(config.limits.connections_max) + SPARE;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => {
            if limit < wanted {
                tracing::warn!(event = "descriptor_limit_low", limit, wanted);
            }
            widen_table(limit.min(wanted));
        }
        Err(error) => tracing::warn!(event = "descriptor_limit_unknown", %error),
    }
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
