//! The directory of the server's socket. The kernel limits a socket's path to about 100 bytes, so
//! that a cluster with a long path has its socket elsewhere.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::account;
use crate::address::{self, PORT};
use crate::error::ClusterError;
use crate::files;
use crate::layout::Layout;

/// Longest path of a socket: 107 bytes on Linux, 103 on macOS and the BSDs.
const PATH_BYTES_MAX: usize = 103;

/// Makes the directory: beside the data if that path is short and has only plain characters, else
/// a new one among the system's temporary files.
pub(crate) async fn make_directory(layout: &Layout) -> Result<PathBuf, ClusterError> {
    let usual = layout.home.join("socket");
    let link = layout.directory.join("socket");
    if is_usable(&usual) {
        // The link may lead to a short path that was needed before the cluster was moved here.
        files::remove_link(&link)?;
        files::make_private_directory(&usual, layout.account)
            .map_err(ClusterError::io("create", &usual))?;
        if usual != link {
            files::make_link(&link, &usual)?;
        }
        return Ok(usual);
    }
    // Left by a service that was killed. Checked, because another user may have put a directory of
    // their own there since.
    if let Ok(left) = fs::read_link(&link)
        && files::is_private_directory(&left, layout.account)
    {
        return Ok(left);
    }
    let name = format!("hushnet-realtime-{:.12}", Uuid::new_v4().simple());
    let mut failure = io::ErrorKind::InvalidFilename.into();
    for parent in [env::temp_dir(), "/tmp".into()] {
        let short = parent.join(&name);
        if !is_usable(&short) || !account::can_reach(layout.account, &parent).await {
            continue;
        }
        match files::make_private_directory(&short, layout.account) {
            Ok(()) => {
                files::remove_link(&link)?;
                return files::make_link(&link, &short).map(|()| short);
            }
            Err(error) => failure = error,
        }
    }
    Err(ClusterError::io(
        "make a directory with a short name for the socket of",
        &layout.directory,
    )(failure))
}

/// Removes the directory if it is among the temporary files. A failure leaves an empty directory.
pub(crate) fn remove_short_directory(layout: &Layout, directory: &Path) {
    if directory != layout.home.join("socket") {
        let _ = fs::remove_dir(directory);
    }
}

/// Plain characters only: in an address a comma separates hosts, in a setting a quote ends the value.
fn is_usable(directory: &Path) -> bool {
    let bytes = directory.as_os_str().as_encoded_bytes();
    let name_bytes = "/".len() + address::socket_name(PORT).len();
    bytes.len() + name_bytes <= PATH_BYTES_MAX
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte))
}
