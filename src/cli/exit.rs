//! The end of the process, and its exit code.

use std::process::ExitCode;

use hushnet_realtime::app::RunError;
use hushnet_realtime::config::ConfigError;
use hushnet_realtime::identity::SigningError;
use hushnet_realtime::output::{self, OutputError};
use hushnet_realtime::store::attach::AttachError;
use hushnet_realtime::store::{GrantError, migrate};

/// A mistake in how the program was called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// Says what went wrong, and waits for the last lines. Closed output is the end of a command and no error.
pub(crate) fn conclude(outcome: anyhow::Result<()>) -> ExitCode {
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(OutputError::Closed)) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::complain(format_args!("error: {}", in_one_line(&error)));
            exit_code(&error)
        }
    };
    output::write_last_words();
    code
}

/// The error with its causes. Many an error's text ends with its cause's, which is then not said again.
fn in_one_line(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(ToString::to_string);
    causes.fold(error.to_string(), |said, cause| {
        if said.ends_with(&cause) {
            said
        } else {
            format!("{said}: {cause}")
        }
    })
}

/// 2 for what the user can mend in the call or the configuration, else 1.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_misuse = error.is::<Misuse>()
        || error.is::<ConfigError>()
        || matches!(
            error.downcast_ref(),
            Some(RunError::Config(_) | RunError::NoDescriptors { .. })
        )
        || matches!(error.downcast_ref(), Some(SigningError::Config(_)))
        || matches!(
            error.downcast_ref(),
            Some(migrate::Error::Grant(GrantError::NoRole { .. }))
        )
        || matches!(
            error.downcast_ref(),
            Some(AttachError::NoUsers | AttachError::NoSuchKind(_) | AttachError::Refused { .. })
        );
    ExitCode::from(if is_misuse { 2 } else { 1 })
}

/// Ends the process without waiting for anything but the last lines.
#[expect(
    clippy::disallowed_methods,
    reason = "the last lines are written before"
)]
pub(super) fn at_once(code: i32) -> ! {
    output::write_last_words();
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the database refused: {0}")]
    struct Repeating(#[from] std::fmt::Error);

    #[test]
    fn each_text_is_said_once() {
        let repeating = || anyhow::Error::from(Repeating(std::fmt::Error));
        let text = std::fmt::Error.to_string();
        let said = in_one_line(&repeating());
        assert_eq!(said, format!("the database refused: {text}"));
        let said = in_one_line(&repeating().context("cannot migrate"));
        assert_eq!(
            said,
            format!("cannot migrate: the database refused: {text}")
        );
        let plain = Err::<(), _>(std::fmt::Error).context("cannot write");
        assert_eq!(
            in_one_line(&plain.unwrap_err()),
            format!("cannot write: {text}")
        );
    }
}
