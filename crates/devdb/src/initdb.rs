//! Creating the data directory.

use std::fs::{self, File};
use std::process::Command;

use crate::account;
use crate::address::SUPERUSER;
use crate::binaries::Binaries;
use crate::error::ClusterError;
use crate::files;
use crate::layout::Layout;

/// Runs initdb. The directory has another name until initdb has succeeded, so that a data directory
/// is never half made.
pub(crate) async fn create_data(
    layout: &Layout,
    binaries: &Binaries,
    flush: bool,
    lock: &File,
) -> Result<(), ClusterError> {
    let unfinished = layout.home.join("data.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(ClusterError::io("remove", &unfinished))?;
    }
    files::make_private_directory(&unfinished, layout.account)
        .map_err(ClusterError::io("create", &unfinished))?;
    let program = binaries.path("initdb");
    let mut command = Command::new(&program);
    account::prepare(&mut command, layout.account);
    command.arg("--pgdata").arg(&unfinished);
    command.args(["--username", SUPERUSER, "--encoding", "UTF8"]);
    command.args(["--locale", "C", "--no-instructions"]);
    command.args(["--auth-local", "trust", "--auth-host", "reject"]);
    if !flush {
        command.arg("--no-sync");
    }
    // initdb does not read its standard input. It holds the lock there, so that no other service
    // starts in this directory if this service is killed now.
    let lock = lock
        .try_clone()
        .map_err(ClusterError::io("share", &layout.data))?;
    command.stdin(lock);
    let output = tokio::process::Command::from(command)
        .output()
        .await
        .map_err(ClusterError::io("run", &program))?;
    if !output.status.success() {
        return Err(ClusterError::Initdb {
            data: unfinished,
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned(),
        });
    }
    fs::rename(&unfinished, &layout.data).map_err(ClusterError::io("rename", &unfinished))
}
