//! An asynchronous standby of a private cluster.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use hushnet_devdb::Cluster;

/// Copies the running cluster in the directory `primary`, to which `url` leads, into the directory `home`, and starts
/// the copy as its standby.
pub async fn start(primary: &Path, url: &str, home: &Path, settings: &[(&str, &str)]) -> Cluster {
    let data = fs::canonicalize(primary.join("data")).unwrap();
    let owner = fs::metadata(&data).unwrap();
    fs::create_dir_all(home).unwrap();
    chown(home, Some(owner.uid()), Some(owner.gid())).unwrap();
    let pid_file = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let postmaster = pid_file.lines().next().unwrap().trim();
    let programs = fs::read_link(format!("/proc/{postmaster}/exe")).unwrap();
    let mut command = Command::new(programs.with_file_name("pg_basebackup"));
    command
        .current_dir("/")
        .args(["--write-recovery-conf", "--checkpoint", "fast", "--no-sync"])
        .arg("--pgdata")
        .arg(home.join("data"))
        .args(["--dbname", url]);
    if fs::metadata("/proc/self").unwrap().uid() != owner.uid() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let copying = tokio::process::Command::from(command).output();
    let output = copying.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    Cluster::start_with(home, settings).await.unwrap()
}
