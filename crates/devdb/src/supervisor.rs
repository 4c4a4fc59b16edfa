//! The shell that runs between the service and PostgreSQL, so that the server never outlives the
//! service.
//!
//! A service that is killed cannot stop its server, but the kernel closes the service's files. The
//! shell therefore waits for the end of its standard input, a pipe whose other end only the service
//! holds, and then stops the server. The shell's standard output is `supervisor.lock`, which is
//! locked for exactly as long as a shell lives: a service that gets the lock knows that no shell is
//! about to stop a server.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::account::{self, Account};
use crate::error::ClusterError;

/// A fast shutdown writes a checkpoint, which can take long on a slow disk.
pub(crate) const FAST_SHUTDOWN_DEADLINE: Duration = Duration::from_mins(1);
/// An immediate shutdown writes nothing.
pub(crate) const IMMEDIATE_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// Starts the server: the arguments are its command.
///
/// - The watcher repeats SIGINT until the server has ended. The first signal may come before
///   PostgreSQL handles it, and a shell starts its background processes with SIGINT ignored.
/// - The server and `sleep` must not inherit the lock (descriptor 1): they would hold it too long.
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

/// Supervises a server that runs already: `$1` is its process. It is not the shell's child, so that
/// the shell cannot `wait` for it.
const ADOPT: &str = r#"
exec 2>/dev/null
while read -r signal; do kill -s "$signal" "$1"; done
while kill -s INT "$1"; do sleep 1 >&2 </dev/null; done
"#;

/// A running shell. Dropping it stops the server in the background.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shell: Child,
    /// Closed by [`Supervisor::release`], by dropping, or by the kernel when the service ends.
    stdin: Option<ChildStdin>,
}

impl Supervisor {
    /// Runs `command` as the server; its output goes to `log`.
    pub(crate) fn launch(
        command: &[impl AsRef<OsStr>],
        account: Option<Account>,
        lock: File,
        log: File,
    ) -> Result<Self, ClusterError> {
        let mut shell = shell(LAUNCH, account, lock, log);
        shell.args(command);
        Self::spawn(shell)
    }

    /// Supervises the running server `pid`.
    pub(crate) fn adopt(
        pid: u32,
        account: Option<Account>,
        lock: File,
        log: File,
    ) -> Result<Self, ClusterError> {
        let mut shell = shell(ADOPT, account, lock, log);
        shell.arg(pid.to_string());
        Self::spawn(shell)
    }

    fn spawn(mut command: Command) -> Result<Self, ClusterError> {
        let mut shell = command
            .spawn()
            .map_err(ClusterError::io("run", Path::new(account::SHELL)))?;
        let stdin = shell.stdin.take();
        Ok(Self { shell, stdin })
    }

    #[cfg(test)]
    pub(crate) fn process_id(&self) -> u32 {
        self.shell.id()
    }

    /// Sends the server a signal, named without SIG. A failure means that the shell has ended, and
    /// the server with it.
    pub(crate) fn send(&mut self, signal: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{signal}\n").as_bytes());
        }
    }

    /// Tells the shell to stop the server and to end.
    pub(crate) fn release(&mut self) {
        self.stdin = None;
    }

    /// Whether the shell has ended. It ends only after its server.
    pub(crate) fn has_exited(&mut self) -> bool {
        !matches!(self.shell.try_wait(), Ok(None))
    }
}

fn shell(script: &str, account: Option<Account>, lock: File, log: File) -> Command {
    let mut command = Command::new(account::SHELL);
    command.args(["-c", script, "hushnet-realtime-postgres"]);
    account::prepare(&mut command, account);
    // Ctrl-C in a terminal is sent to the whole foreground process group. In a group of its own, the
    // server stops after the service has drained.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(lock).stderr(log);
    command
}
