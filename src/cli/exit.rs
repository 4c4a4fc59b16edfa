//! The exit codes.

use std::process::ExitCode;

use hushnet_realtime::app::RunError;
use hushnet_realtime::config::ConfigError;
use hushnet_realtime::identity::SigningError;

/// A mistake in how the program was called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// 2 for what the user can mend in the call or the configuration, else 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_misuse = error.is::<Misuse>()
        || error.is::<ConfigError>()
        || matches!(
            error.downcast_ref(),
            Some(RunError::Config(_) | RunError::NoDescriptors { .. })
        )
        || matches!(error.downcast_ref(), Some(SigningError::Config(_)));
    ExitCode::from(if is_misuse { 2 } else { 1 })
}
