//! The operating system's user that the server runs as.
//!
//! PostgreSQL refuses to run as root. If the service runs as root, the server runs as another user;
//! otherwise it runs as the service's own user.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::error::ClusterError;

pub(crate) const SHELL: &str = "/bin/sh";
/// Users that the server runs as if the service runs as root; the first that exists is taken.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// All that PostgreSQL and the shell need of the service's environment. The rest may hold secrets,
/// and variables that change what PostgreSQL does.
const VARIABLES: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "TZ"];

/// A user other than the service's own. Only root can start programs as another user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The user that the server runs as: the owner of an existing data directory, else the first of
    /// [`USERS`]. `None` if that is the service's own user.
    pub(crate) fn choose(existing_data: Option<&Path>) -> Result<Option<Self>, ClusterError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        if let Some(data) = existing_data {
            let owner = fs::metadata(data).map_err(ClusterError::io("read", data))?;
            return Ok(Some(Self {
                uid: owner.uid(),
                gid: owner.gid(),
            }));
        }
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path).map_err(ClusterError::io("read", path))?;
        USERS
            .iter()
            .find_map(|name| Self::parse(&passwd, name))
            .map(Some)
            .ok_or(ClusterError::NoAccount)
    }

    fn parse(passwd: &str, name: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            Some(Self {
                uid: fields.nth(1)?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
            })
        })
    }
}

/// Makes a command run as the server's user, with little of the service's environment. Its current
/// directory is `/`, because PostgreSQL refuses to start from a directory that it cannot read.
pub(crate) fn prepare(command: &mut Command, account: Option<Account>) {
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    command.envs(
        VARIABLES
            .iter()
            .filter_map(|name| Some((name, env::var_os(name)?))),
    );
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}

/// Whether the server's user can enter the directory. A program running as that user tries it: an
/// access list or a mount may forbid what the directory's mode allows.
pub(crate) async fn can_reach(account: Option<Account>, directory: &Path) -> bool {
    if account.is_none() {
        return true;
    }
    let mut command = Command::new(SHELL);
    command.args(["-c", r#"cd -- "$1""#, "sh"]).arg(directory);
    prepare(&mut command, account);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let status = tokio::process::Command::from(command).status().await;
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
                      postgres-backup:x:7:7::/:/bin/sh\n\
                      postgres:x:101:103:administrator:/var/lib/postgresql:/bin/sh\n";
        let found = Account::parse(passwd, "postgres").unwrap();
        assert_eq!((found.uid, found.gid), (101, 103));
        assert!(Account::parse(passwd, "nobody").is_none());
    }
}
