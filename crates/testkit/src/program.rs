//! Starting a program, reading its output, signalling and ending it.

use std::env;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::wait::soon;

/// The service's settings come from variables that begin with this.
const SETTINGS_PREFIX: &str = "HUSHNET_";

/// A command without the settings of this process's environment and without input. Its process is
/// killed when the handle is dropped.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with(SETTINGS_PREFIX) {
            command.env_remove(name);
        }
    }
    command
}

/// The lines that a program writes.
#[derive(Debug)]
pub struct Output<R>(Lines<BufReader<R>>);

impl<R: AsyncRead + Unpin> Output<R> {
    /// Reads lines from a program's pipe.
    pub fn new(pipe: R) -> Self {
        Self(BufReader::new(pipe).lines())
    }

    /// The next line; `None` if the output has ended.
    pub async fn next(&mut self) -> Option<String> {
        soon("a line of the program", self.0.next_line())
            .await
            .unwrap()
    }

    /// The next line.
    pub async fn line(&mut self) -> String {
        self.next().await.expect("the program's output has ended")
    }

    /// Reads up to a line that begins with `prefix` and returns the rest of it.
    pub async fn after(&mut self, prefix: &str) -> String {
        loop {
            let line = self.next().await;
            let line = line.unwrap_or_else(|| panic!("the output ended without {prefix:?}"));
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// Reads up to a line that consists of `prefix` and a socket's address.
    pub async fn address_after(&mut self, prefix: &str) -> SocketAddr {
        let text = self.after(prefix).await;
        text.parse()
            .unwrap_or_else(|_| panic!("no address after {prefix:?}: {text}"))
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// Its standard output.
    pub output: Output<ChildStdout>,
    /// Its standard error, if the command has a pipe there; else this process's own.
    pub log: Option<Output<ChildStderr>>,
}

impl Program {
    /// Starts the command.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            output: Output::new(child.stdout.take().unwrap()),
            log: child.stderr.take().map(Output::new),
            child,
        }
    }

    /// The process's number. Panics if it has ended and this was noticed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the program has ended")
    }

    /// Sends a signal, named without SIG.
    pub async fn signal(&self, name: &str) {
        signal(name, self.pid()).await;
    }

    /// Waits for the end of the program.
    pub async fn ended(&mut self) -> ExitStatus {
        soon("the end of the program", self.child.wait())
            .await
            .unwrap()
    }

    /// Ends the program without a warning.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Sends a process a signal, named without SIG.
pub async fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .await
        .unwrap();
    assert!(sent.success(), "cannot send {name} to process {pid}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn lines_are_read_and_the_end_is_awaited() {
        let mut program = Program::start(
            shell("echo first; echo at 127.0.0.1:80; echo 'the log' >&2; exit 3")
                .stderr(Stdio::piped()),
        );
        let address = program.output.address_after("at ").await;
        assert_eq!(address, "127.0.0.1:80".parse().unwrap());
        assert_eq!(program.output.next().await, None);
        assert_eq!(program.log.as_mut().unwrap().line().await, "the log");
        assert_eq!(program.ended().await.code(), Some(3));
    }

    #[tokio::test]
    async fn a_signal_reaches_the_program() {
        let script =
            "trap 'echo terminated; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let mut program = Program::start(&mut shell(script));
        assert_eq!(program.output.line().await, "ready");
        program.signal("TERM").await;
        assert_eq!(program.output.line().await, "terminated");
        assert!(program.ended().await.success());
    }
}
