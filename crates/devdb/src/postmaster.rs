//! `postmaster.pid`: which server runs on a data directory, and whether it still lives.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::address;
use crate::error::ClusterError;

/// The entries of `postmaster.pid` that are needed. PostgreSQL's `pidfile.h` declares its lines.
#[derive(Debug)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) port: u16,
    /// The directory of the server's socket; empty until the server listens.
    pub(crate) socket: PathBuf,
    /// The server takes connections. Not set while it recovers or shuts down.
    pub(crate) ready: bool,
}

impl Postmaster {
    /// `None` if there is no such file, or if its first line is not complete.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        Some(Self {
            pid: lines.next()?.trim().parse().ok()?,
            port: lines.nth(2).unwrap_or_default().trim().parse().unwrap_or(0),
            socket: lines.next().unwrap_or_default().into(),
            ready: lines.nth(2).is_some_and(|status| status.trim() == "ready"),
        })
    }

    /// Whether a process listens on the socket. It may still answer that it is starting up.
    pub(crate) fn accepts(&self) -> bool {
        UnixStream::connect(self.socket.join(address::socket_name(self.port))).is_ok()
    }

    /// Whether this server lives. That a process with its number lives is not enough: after a crash
    /// of the machine the number may belong to any process.
    pub(crate) fn is_alive(&self, data: &Path) -> bool {
        if !has_proc() {
            return self.accepts();
        }
        // Not `cwd`, which root may not read in a container.
        let Ok(command_line) = fs::read(format!("/proc/{}/cmdline", self.pid)) else {
            return false;
        };
        let command_line = String::from_utf8_lossy(&command_line);
        let mut arguments = command_line.split('\0');
        let is_postgres = arguments
            .next()
            .and_then(|program| Path::new(program).file_name())
            .is_some_and(|name| name == "postgres" || name == "postmaster");
        let mut names_data = || {
            arguments.any(|argument| {
                fs::canonicalize(argument).is_ok_and(|path| path.is_dir() && path == data)
            })
        };
        is_postgres && (names_data() || self.accepts())
    }

    /// Removes the file of a server that has died. PostgreSQL removes it itself unless its number now
    /// belongs to another process of the server's user: then PostgreSQL refuses to start.
    pub(crate) fn remove_file(&self, data: &Path) -> Result<(), ClusterError> {
        if !has_proc() {
            return Ok(());
        }
        let path = data.join("postmaster.pid");
        tracing::info!(pid = self.pid, path = %path.display(), "stale postmaster.pid removed");
        fs::remove_file(&path).map_err(ClusterError::io("remove", &path))
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self/cmdline").exists()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn the_file_is_read_at_each_stage_of_a_start() {
        let whole = "42\n/d/data\n1700000000\n5433\n/d/socket\n\n   12345     3\nready   \n";
        let found = Postmaster::parse(whole).unwrap();
        assert_eq!((found.pid, found.port, found.ready), (42, 5433, true));
        assert_eq!(found.socket, Path::new("/d/socket"));

        let begun = Postmaster::parse("42\n/d/data\n1700000000\n5433\n").unwrap();
        assert!(!begun.ready);
        assert!(
            !Postmaster::parse(&whole.replace("ready   ", "stopping"))
                .unwrap()
                .ready
        );
        assert!(Postmaster::parse("").is_none());
    }

    /// A process that does nothing, with the command line that a test wants. Killed when dropped.
    struct Idle(Child);

    impl Idle {
        fn start(program: &str, argument: &Path) -> Self {
            let mut command = Command::new("/bin/sh");
            command
                .arg0(program)
                .args(["-c", "read line", "sh"])
                .arg(argument)
                .stdin(Stdio::piped());
            let idle = Self(command.spawn().unwrap());
            // Until it has executed the shell, it has the command line of this test.
            let path = format!("/proc/{}/cmdline", idle.0.id());
            while !fs::read(&path).unwrap().starts_with(program.as_bytes()) {
                std::thread::yield_now();
            }
            idle
        }

        fn is_alive_as_server(&self, socket: &Path, data: &Path) -> bool {
            let found = Postmaster {
                pid: self.0.id(),
                port: 5432,
                socket: socket.to_owned(),
                ready: true,
            };
            found.is_alive(data)
        }
    }

    impl Drop for Idle {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_server_is_alive_if_its_process_is_postgres_and_names_the_data_or_accepts() {
        assert!(has_proc(), "this test needs /proc");
        let directory = tempfile::tempdir().unwrap();
        let data = fs::canonicalize(directory.path()).unwrap();
        let (open, closed) = (data.join("open"), data.join("closed"));
        fs::create_dir(&open).unwrap();
        let _listener = UnixListener::bind(open.join(address::socket_name(5432))).unwrap();

        let server = Idle::start("/usr/bin/postgres", &data);
        assert!(server.is_alive_as_server(&closed, &data));
        let elsewhere = Idle::start("/usr/bin/postgres", Path::new("/"));
        assert!(elsewhere.is_alive_as_server(&open, &data));
        assert!(!elsewhere.is_alive_as_server(&closed, &data));
        // Another program, although it names the data directory and the socket accepts.
        let other_program = Idle::start("/usr/bin/other", &data);
        assert!(!other_program.is_alive_as_server(&open, &data));
    }

    #[test]
    fn a_server_whose_process_has_ended_is_not_alive() {
        let directory = tempfile::tempdir().unwrap();
        let data = fs::canonicalize(directory.path()).unwrap();
        let _listener = UnixListener::bind(data.join(address::socket_name(5432))).unwrap();
        let mut server = Idle::start("/usr/bin/postgres", &data);
        assert!(server.is_alive_as_server(&data, &data));
        server.0.kill().unwrap();
        server.0.wait().unwrap();
        // Its socket still accepts, as that of another server in the same directory might.
        assert!(!server.is_alive_as_server(&data, &data));
    }
}
