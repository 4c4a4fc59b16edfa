//! The shell between the service and PostgreSQL, so that the server never outlives the service.
//!
//! The service may be killed and then runs no code, but the kernel closes its files: the shell waits
//! for the end of its standard input, whose other end only the service holds, and then stops the
//! server. Its standard output is `supervisor.lock`, which is locked for exactly as long as a shell
//! lives: whoever gets the lock knows that no shell is about to stop a server.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::EmbeddedError;
use super::place::{self, Account};

/// `$1` is a command that becomes the server.
///
/// - The watcher repeats SIGINT until the server is gone: the first may come before PostgreSQL
///   handles it, and a shell starts its background processes with SIGINT ignored.
/// - The server and `sleep` must not inherit the lock (descriptor 1): it would be held too long.
const LAUNCH: &str = r#"
exec 3<&0 </dev/null
"$@" >&2 3<&- &
server=$!
(
  while read -r signal <&3; do kill -s "$signal" "$server"; done
  while kill -s INT "$server"; do sleep 1 >&2 3<&-; done
) 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// `$1` is the number of a server that runs already; it is no child, so there is no `wait`.
const ADOPT: &str = r#"
exec 2>/dev/null
while read -r signal; do kill -s "$signal" "$1"; done
while kill -s INT "$1"; do sleep 1 >&2 </dev/null; done
"#;

/// A running shell. Dropped, it stops the server in the background.
#[derive(Debug)]
pub(super) struct Supervisor {
    shell: Child,
    /// Closed by [`Supervisor::release`], by a drop or by our death.
    stdin: Option<ChildStdin>,
}

impl Supervisor {
    /// Runs `command` as the server, its output to `log`.
    pub(super) fn launch(
        command: &[impl AsRef<OsStr>],
        account: Option<Account>,
        lock: File,
        log: File,
    ) -> Result<Self, EmbeddedError> {
        let mut shell = shell(LAUNCH, account, lock, log);
        shell.args(command);
        Self::spawn(shell)
    }

    /// Looks after the running server `pid`.
    pub(super) fn adopt(
        pid: u32,
        account: Option<Account>,
        lock: File,
        log: File,
    ) -> Result<Self, EmbeddedError> {
        let mut shell = shell(ADOPT, account, lock, log);
        shell.arg(pid.to_string());
        Self::spawn(shell)
    }

    fn spawn(mut command: Command) -> Result<Self, EmbeddedError> {
        let mut shell = command
            .spawn()
            .map_err(EmbeddedError::io("run", Path::new(place::SHELL)))?;
        let stdin = shell.stdin.take();
        Ok(Self { shell, stdin })
    }

    #[cfg(test)]
    pub(super) fn process_id(&self) -> u32 {
        self.shell.id()
    }

    /// Has the server sent a signal, by its name without SIG. If the shell is gone, so is the
    /// server, and there is nothing to tell.
    pub(super) fn send(&mut self, signal: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{signal}\n").as_bytes());
        }
    }

    /// Has the server stopped and lets the shell end.
    pub(super) fn release(&mut self) {
        self.stdin = None;
    }

    /// Whether the shell has ended, and with it a server that it launched.
    pub(super) fn has_exited(&mut self) -> bool {
        !matches!(self.shell.try_wait(), Ok(None))
    }
}

fn shell(script: &str, account: Option<Account>, lock: File, log: File) -> Command {
    let mut command = Command::new(place::SHELL);
    command.args(["-c", script, "hushnet-realtime-postgres"]);
    place::prepare(&mut command, account);
    // Ctrl-C in a terminal goes to the whole foreground group: the server is to stop after the
    // service has drained, not with it.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(lock).stderr(log);
    command
}
