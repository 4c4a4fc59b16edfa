//! What a running server says about itself in `postmaster.pid`, and whether it is still so.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::EmbeddedError;

/// The entries of `postmaster.pid` that are needed; PostgreSQL's `pidfile.h` declares the lines.
#[derive(Debug)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    pub(super) port: u16,
    /// Where it listens; empty until it does.
    pub(super) socket: PathBuf,
    /// It takes connections; not while it recovers, and not while it shuts down.
    pub(super) ready: bool,
}

impl Postmaster {
    /// `None` if there is no such file, or one that is only begun.
    pub(super) fn read(data: &Path) -> Option<Self> {
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

    /// Whether somebody listens on the socket, which may still answer that it is starting up.
    pub(super) fn accepts(&self) -> bool {
        UnixStream::connect(self.socket.join(format!(".s.PGSQL.{}", self.port))).is_ok()
    }

    /// Whether this server lives. The number alone proves nothing: after a crash of the machine it
    /// may be any process's.
    pub(super) fn is_alive(&self, data: &Path) -> bool {
        if !has_proc() {
            return self.accepts();
        }
        // `cmdline` and not `cwd`, which root may not read in a container.
        let Ok(cmdline) = fs::read(format!("/proc/{}/cmdline", self.pid)) else {
            return false;
        };
        let cmdline = String::from_utf8_lossy(&cmdline);
        let mut arguments = cmdline.split('\0');
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

    /// Removes the file of a server that is known to be dead. PostgreSQL would do so itself, unless
    /// the number now belongs to another process of its account: then it refuses to start.
    pub(super) fn forget(&self, data: &Path) -> Result<(), EmbeddedError> {
        if !has_proc() {
            return Ok(());
        }
        let path = data.join("postmaster.pid");
        tracing::info!(pid = self.pid, path = %path.display(), "stale postmaster.pid removed");
        fs::remove_file(&path).map_err(EmbeddedError::io("remove", &path))
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self/cmdline").exists()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_number_that_now_belongs_to_another_process_is_not_the_server() {
        let found = Postmaster {
            pid: std::process::id(),
            port: 5432,
            socket: "/nonexistent".into(),
            ready: true,
        };
        assert!(!found.is_alive(Path::new("/nonexistent/data")));
    }
}
