//! Where PostgreSQL's server programs are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Oldest major version that can be used. The service's statements and `xid8` need 13; the tests run 15.
pub(crate) const MAJOR_MIN: u32 = 15;
/// Debian installs each version in a directory of its own, which is not in PATH.
pub(crate) const DEBIAN_DIRECTORY: &str = "/usr/lib/postgresql";
/// The variable that names the directory of the server's programs. If it is set, no other directory is used.
pub(crate) const DIRECTORY_VARIABLE: &str = "DEVDB_POSTGRES_BIN";

/// The directory of `initdb` and `postgres`, of a version that can be used.
#[derive(Debug)]
pub(crate) struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// The version that [`DIRECTORY_VARIABLE`] names. Without the variable: the newest of Debian's versions, else
    /// the one that `pg_config` names, else the one in PATH. If `major` is given, only that major version: a server can only read data of its own version.
    pub(crate) async fn find(major: Option<&str>) -> Option<Self> {
        for directory in candidates().await {
            let Some(found) = version(&directory).await else {
                continue;
            };
            if found >= MAJOR_MIN && major.is_none_or(|major| major == found.to_string()) {
                return Some(Self { directory });
            }
        }
        None
    }

    pub(crate) fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

async fn candidates() -> Vec<PathBuf> {
    let mut found = match env::var_os(DIRECTORY_VARIABLE) {
        Some(directory) => vec![directory.into()],
        None => installed().await,
    };
    found.retain(|directory| {
        // Relative paths would not be found: the programs are started from another directory.
        directory.is_absolute()
            && directory.join("initdb").is_file()
            && directory.join("postgres").is_file()
    });
    found
}

async fn installed() -> Vec<PathBuf> {
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_DIRECTORY)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    debian.sort_by_key(|(major, _)| std::cmp::Reverse(*major));

    let mut found: Vec<PathBuf> = debian.into_iter().map(|(_, path)| path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        found.push(String::from_utf8_lossy(&output.stdout).trim_end().into());
    }
    found.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    found
}

/// The major version of the server in `directory`; `None` if it cannot be run.
async fn version(directory: &Path) -> Option<u32> {
    let output = Command::new(directory.join("postgres"))
        .arg("--version")
        .output()
        .await
        .ok()?;
    major_of(&String::from_utf8_lossy(&output.stdout))
}

/// Reads 15 from `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`, and 18 from
/// `postgres (PostgreSQL) 18beta1`.
fn major_of(line: &str) -> Option<u32> {
    let version = line.split(") ").nth(1)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_kind_of_version() {
        for (line, major) in [
            (
                "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("something else\n", None),
        ] {
            assert_eq!(major_of(line), major, "{line}");
        }
    }

    #[tokio::test]
    async fn an_installed_server_is_found_and_an_impossible_version_is_not() {
        assert!(Binaries::find(None).await.is_some());
        assert!(Binaries::find(Some("9")).await.is_none());
    }
}
