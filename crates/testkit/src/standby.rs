//! An asynchronous standby of a private cluster.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use hushnet_devdb::Cluster;
use sqlx::Connection;

use crate::database::{connect, execute};

/// Copies the running cluster in the directory `primary`, to which `url` leads, into the directory `home`, and starts
/// the copy as its standby. `pg_basebackup` is not used, which only some installations of PostgreSQL have: the files
/// are copied between the two functions of PostgreSQL for that.
pub async fn start(primary: &Path, url: &str, home: &Path, settings: &[(&str, &str)]) -> Cluster {
    let source = fs::canonicalize(primary.join("data")).unwrap();
    let owner = fs::metadata(&source).unwrap();
    let as_owner = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::create_dir_all(home).unwrap();
    as_owner(home);
    let data = home.join("data");
    let mut connection = connect(url).await;
    execute(&mut connection, "SELECT pg_backup_start('standby', true)").await;
    // With owners and modes. PostgreSQL may remove a file meanwhile, so that the status says nothing.
    let copying = tokio::process::Command::new("cp")
        .arg("--archive")
        .args([&source, &data])
        .status();
    copying.await.unwrap();
    let label: String = sqlx::query_scalar("SELECT labelfile FROM pg_backup_stop(false)")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    for (name, text) in [("backup_label", &*label), ("standby.signal", "")] {
        fs::write(data.join(name), text).unwrap();
        as_owner(&data.join(name));
    }
    let configuration = data.join("postgresql.auto.conf");
    let mut configuration = File::options().append(true).open(configuration).unwrap();
    writeln!(configuration, "primary_conninfo = '{url}'").unwrap();
    Cluster::start_with(home, settings).await.unwrap()
}
