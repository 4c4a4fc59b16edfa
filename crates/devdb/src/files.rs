//! Files and directories that no other user may read, and links.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::Path;

use rustix::process::geteuid;

use crate::account::Account;
use crate::error::ClusterError;

/// Opens a file for appending. If it is created, only this user may read it.
pub(crate) fn open_append(path: &Path) -> Result<File, ClusterError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(path).map_err(ClusterError::io("open", path))
}

/// Makes a directory that only the server's user can enter, unless it exists and is so already.
pub(crate) fn make_private_directory(path: &Path, account: Option<Account>) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && is_private_directory(path, account) =>
        {
            return Ok(());
        }
        made => made?,
    }
    match account {
        // Never through a link: the directory above may be writable to another user than root.
        Some(account) => lchown(path, Some(account.uid), Some(account.gid)),
        None => Ok(()),
    }
}

/// Whether this is a directory (not a link) that belongs to the server's user and is closed to others.
pub(crate) fn is_private_directory(path: &Path, account: Option<Account>) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else {
        return false;
    };
    let is_owner = match account {
        Some(account) => found.uid() == account.uid,
        None => found.uid() == geteuid().as_raw(),
    };
    // The six lowest bits are the rights of the group and of others.
    found.is_dir() && is_owner && found.mode().trailing_zeros() >= 6
}

pub(crate) fn make_link(link: &Path, target: &Path) -> Result<(), ClusterError> {
    symlink(target, link).map_err(ClusterError::io("link", link))
}

/// Removes a link, wherever it points to. Leaves anything else as it is.
pub(crate) fn remove_link(link: &Path) -> Result<(), ClusterError> {
    if fs::read_link(link).is_err() {
        return Ok(());
    }
    fs::remove_file(link).map_err(ClusterError::io("remove", link))
}
