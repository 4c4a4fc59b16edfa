//! The paths of one cluster, and the user that they belong to.

use std::fs::{self, DirBuilder};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::account::{self, Account};
use crate::error::ClusterError;
use crate::files;

/// Holds the clusters that root starts for directories that the server's user cannot reach.
const STATE_DIRECTORY: &str = "/var/lib/hushnet-realtime";

/// The paths of one cluster.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The directory that the caller named, with all links resolved. Holds the locks and the log.
    pub(crate) directory: PathBuf,
    /// A directory that the server's user can reach: the same one, or one in [`STATE_DIRECTORY`].
    pub(crate) home: PathBuf,
    /// The data directory, with all links resolved. It may not exist yet.
    pub(crate) data: PathBuf,
    /// The user that the server runs as, if it is not the service's own.
    pub(crate) account: Option<Account>,
}

impl Layout {
    /// Finds the paths of the cluster in `directory`, or decides them for a new one.
    pub(crate) async fn find(directory: PathBuf) -> Result<Self, ClusterError> {
        let link = directory.join("data");
        let existing = match fs::canonicalize(&link) {
            Ok(data) => Some(data),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(ClusterError::io("resolve", &link)(error)),
        };
        let account = Account::choose(existing.as_deref())?;
        let home = match existing.as_deref().and_then(Path::parent) {
            _ if account::can_reach(account, &directory).await => directory.clone(),
            Some(parent) => parent.to_owned(),
            None => state_directory(&directory)?,
        };
        let data = match existing {
            Some(data) => data,
            None => home.join("data"),
        };
        if data.parent() != Some(&directory) && !link.exists() {
            // Also restores a link that was lost: the path of the state directory is a hash of
            // `directory`, so that it leads to the same data again.
            files::remove_link(&link)?;
            files::make_link(&link, &data)?;
        }
        Ok(Self {
            directory,
            home,
            data,
            account,
        })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// The major version that created the data directory; `None` if there is none yet.
    pub(crate) fn major(&self) -> Result<Option<String>, ClusterError> {
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(_) if !self.data.exists() => Ok(None),
            Err(error) => Err(ClusterError::io("read", &path)(error)),
        }
    }
}

/// A directory in [`STATE_DIRECTORY`] whose name is a hash of the path of `directory`.
fn state_directory(directory: &Path) -> Result<PathBuf, ClusterError> {
    let mut hash = Fnv1a::default();
    hash.write(directory.as_os_str().as_encoded_bytes());
    let path = Path::new(STATE_DIRECTORY).join(format!("{:016x}", hash.finish()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&path)
        .map_err(ClusterError::io("create", &path))?;
    fs::canonicalize(&path).map_err(ClusterError::io("resolve", &path))
}

/// FNV-1a. The standard library's hash may change with the compiler, and then the data would not
/// be found again.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv1a {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // From the test vectors of the hash's authors.
        for (bytes, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut state = Fnv1a::default();
            state.write(bytes.as_bytes());
            assert_eq!(state.finish(), hash, "{bytes}");
        }
    }
}
