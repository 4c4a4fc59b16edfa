//! The shell that runs between the test and the broker, so that the broker never outlives the test.
//!
//! A test that is killed cannot stop its broker, but the kernel closes the test's files. The shell therefore reads its
//! standard input, a pipe whose other end only the test holds, and kills the broker when it ends.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use crate::error::BrokerError;

const SHELL: &str = "/bin/sh";

/// Starts the broker: the arguments are its command. Each line of the standard input is a signal for it.
const LAUNCH: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
  while read -r signal <&3; do kill -s "$signal" "$server"; done
  kill -s KILL "$server"
) 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// A running shell. Dropping it kills the broker.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shell: Child,
    /// Closed by dropping, or by the kernel when the test ends.
    stdin: Option<ChildStdin>,
}

impl Supervisor {
    /// Runs the command as the broker; its output goes to `log`.
    pub(crate) fn launch(command: &[&Path], log: File) -> Result<Self, BrokerError> {
        let copy = log.try_clone();
        let copy = copy.map_err(BrokerError::io("duplicate", Path::new("the log")))?;
        let mut shell = Command::new(SHELL);
        shell.args(["-c", LAUNCH, "hushnet-devbus"]).args(command);
        // Ctrl-C in a terminal is sent to the whole foreground process group.
        shell.process_group(0);
        shell.stdin(Stdio::piped()).stdout(log).stderr(copy);
        let mut shell = shell
            .spawn()
            .map_err(BrokerError::io("run", Path::new(SHELL)))?;
        let stdin = shell.stdin.take();
        Ok(Self { shell, stdin })
    }

    /// Sends the broker a signal, named without SIG. A failure means that the shell has ended, and the broker with it.
    pub(crate) fn send(&mut self, signal: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{signal}\n").as_bytes());
        }
    }

    /// Whether the shell has ended. It ends only after its broker.
    pub(crate) fn has_exited(&mut self) -> bool {
        !matches!(self.shell.try_wait(), Ok(None))
    }

    /// Kills the broker, and waits for its end.
    pub(crate) fn kill(mut self) -> Option<ExitStatus> {
        self.stdin = None;
        self.shell.wait().ok()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stdin = None;
        // It ends at once: SIGKILL also ends a frozen process.
        let _ = self.shell.wait();
    }
}
