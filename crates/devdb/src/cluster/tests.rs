//! With the PostgreSQL of this machine. Each test has a cluster of its own.

use std::env;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::account;
use crate::binaries::{Binaries, DEBIAN_DIRECTORY, DIRECTORY_VARIABLE};

/// Without flushing, which would be most of the tests' time.
const SETTINGS: &[(&str, &str)] = &[("fsync", "off"), ("max_connections", "10")];
/// Until a condition must hold, on the busiest machine.
const DEADLINE: Duration = Duration::from_mins(3);
/// The variable that names the directory for [`hold_a_cluster_until_killed`].
const HELPER_DIRECTORY: &str = "HUSHNET_TEST_DEVDB_DIRECTORY";

/// A directory that the server's user can reach, also when root runs the tests.
fn reachable_directory() -> TempDir {
    directory(0o755)
}

fn directory(mode: u32) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    directory
}

async fn start(directory: &Path) -> Result<Cluster, ClusterError> {
    Cluster::start_with(directory, SETTINGS).await
}

async fn scalar(url: &str, statement: &'static str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let answer = sqlx::query_scalar(statement)
        .fetch_one(&mut connection)
        .await;
    connection.close().await?;
    answer
}

async fn execute(url: &str, statement: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// A client program of the server's version: beside the server's programs, or Debian's. `None` if the tests run on
/// another version than Debian's; a line on standard error then says what is skipped. The caller returns.
async fn client_program(cluster: &Cluster, name: &str, test: &str) -> Option<PathBuf> {
    let major = cluster.layout.major().unwrap().unwrap();
    let binaries = Binaries::find(Some(&major)).await.unwrap();
    let debian = Path::new(DEBIAN_DIRECTORY).join(&major).join("bin");
    let places = [binaries.path(name), debian.join(name)];
    let found = places.into_iter().find(|place| place.is_file());
    if found.is_none() {
        assert!(
            env::var_os(DIRECTORY_VARIABLE).is_some(),
            "PostgreSQL {major} is installed without {name}"
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "a line of `eprintln!` is not shown when the test passes"
        )]
        let mut stderr = std::io::stderr();
        writeln!(
            stderr,
            "SKIPPED {test}: there is no {name} of PostgreSQL {major}"
        )
        .unwrap();
    }
    found
}

fn has_pid_file(directory: &Path) -> bool {
    directory.join("data/postmaster.pid").exists()
}

/// The fields of `/proc/<pid>/stat` after the command: state, parent, process group, and so on.
/// `None` if there is no such process.
fn process_fields(pid: u32) -> Option<Vec<String>> {
    // Without this, a machine without /proc would have no processes at all.
    assert!(
        Path::new("/proc/self/stat").exists(),
        "these tests need /proc"
    );
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// Whether the process runs. One that has ended and that its parent has not collected does not.
fn process_runs(pid: u32) -> bool {
    process_fields(pid).is_some_and(|fields| fields[0] != "Z")
}

fn process_group(pid: u32) -> Option<u32> {
    process_fields(pid)?[2].parse().ok()
}

fn group_members(group: u32) -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |&pid| process_group(pid) == Some(group))
}

fn postmaster_pid(cluster: &Cluster) -> u32 {
    Postmaster::read(&cluster.layout.data).unwrap().pid
}

#[tokio::test]
async fn psql_reads_the_address_as_sqlx_does() {
    let directory = reachable_directory();
    let cluster = start(directory.path()).await.unwrap();
    let test = "psql_reads_the_address_as_sqlx_does";
    let Some(psql) = client_program(&cluster, "psql", test).await else {
        return;
    };
    let name = r#"a database+"1""#;
    cluster.create_database(name).await.unwrap();
    let url = cluster.url(name);
    execute(&url, "CREATE TABLE kept AS SELECT 'still here' AS words").await;
    let output = Command::new(psql)
        .args(["-XAtq", "-d", &url])
        .args(["-c", "SELECT current_database(), words FROM kept"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answer.trim_end(), format!("{name}|still here"));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn data_survive_a_restart() {
    let directory = reachable_directory();
    let cluster = start(directory.path()).await.unwrap();
    let name = r#"a database+"1""#;
    cluster.create_database(name).await.unwrap();
    cluster.create_database(name).await.unwrap();
    let url = cluster.url(name);
    execute(&url, "CREATE TABLE kept AS SELECT 'still here' AS words").await;
    assert_eq!(
        scalar(&url, "SELECT current_database()::text")
            .await
            .unwrap(),
        name
    );
    assert_eq!(scalar(&url, "SHOW max_connections").await.unwrap(), "10");
    assert_eq!(scalar(&url, "SHOW listen_addresses").await.unwrap(), "");
    assert_eq!(scalar(&url, "SHOW server_encoding").await.unwrap(), "UTF8");
    assert_eq!(
        Cluster::locate(directory.path(), name).as_deref(),
        Some(&*url)
    );
    cluster.stop().await.unwrap();
    assert!(!has_pid_file(directory.path()));
    assert_eq!(Cluster::locate(directory.path(), name), None);

    let cluster = start(directory.path()).await.unwrap();
    let words = scalar(&cluster.url(name), "SELECT words FROM kept").await;
    assert_eq!(words.unwrap(), "still here");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_service_is_refused_until_the_first_has_ended() {
    let directory = reachable_directory();
    let first = start(directory.path()).await.unwrap();
    let second = start(directory.path()).await.unwrap_err();
    assert!(matches!(second, ClusterError::InUse { .. }), "{second}");
    assert_eq!(
        scalar(&first.url("postgres"), "SELECT 'unharmed'")
            .await
            .unwrap(),
        "unharmed"
    );

    // Dropped, not stopped: the third start has to wait for the end of the first server.
    drop(first);
    let third = start(directory.path()).await.unwrap();
    third.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "the process that another test starts and kills"]
async fn hold_a_cluster_until_killed() {
    let Some(directory) = env::var_os(HELPER_DIRECTORY) else {
        return;
    };
    let _cluster = start(Path::new(&directory)).await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_server_stops_when_the_service_is_killed() {
    let directory = reachable_directory();
    let mut service = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "cluster::tests::hold_a_cluster_until_killed",
        ])
        .env(HELPER_DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = None;
    let located = until(DEADLINE, || {
        url = Cluster::locate(directory.path(), "postgres");
        url.is_some()
    });
    assert!(located.await, "no cluster was started");
    let url = url.unwrap();
    execute(&url, "CREATE TABLE kept AS SELECT 'still here' AS words").await;
    // A fast shutdown does not wait for connected clients.
    let mut client = PgConnection::connect(&url).await.unwrap();
    let pid = Postmaster::read(&directory.path().join("data"))
        .unwrap()
        .pid;
    assert!(process_runs(pid));

    service.kill().unwrap();
    service.wait().unwrap();
    let stopped = until(DEADLINE, || !process_runs(pid));
    assert!(stopped.await, "the server outlived its service");
    assert!(!has_pid_file(directory.path()));
    assert!(client.ping().await.is_err());

    let cluster = start(directory.path()).await.unwrap();
    let words = scalar(&cluster.url("postgres"), "SELECT words FROM kept").await;
    assert_eq!(words.unwrap(), "still here");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_lost_its_supervisor_is_used_and_stopped() {
    let directory = reachable_directory();
    let first = start(directory.path()).await.unwrap();
    let url = first.url("postgres");
    let pid = postmaster_pid(&first);
    let group = first.server.supervisor.process_id();
    assert_ne!(process_group(std::process::id()), Some(group));
    assert_eq!(process_group(pid), Some(group));
    // The group has the server and the shells. Only the shells are killed.
    for shell in group_members(group).filter(|&member| member != pid) {
        assert!(
            Command::new("kill")
                .args(["-KILL", &shell.to_string()])
                .status()
                .unwrap()
                .success()
        );
    }
    drop(first);

    let second = start(directory.path()).await.unwrap();
    assert_eq!(second.url("postgres"), url);
    assert_eq!(postmaster_pid(&second), pid);
    assert_eq!(scalar(&url, "SELECT 'served'").await.unwrap(), "served");
    assert!(process_runs(pid));
    second.stop().await.unwrap();
    assert!(!process_runs(pid), "the server outlived `stop`");
}

/// Killed when dropped.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_pid_file_whose_number_another_process_has_is_not_in_the_way() {
    let directory = reachable_directory();
    let cluster = start(directory.path()).await.unwrap();
    let account = cluster.layout.account;
    cluster.stop().await.unwrap();

    // PostgreSQL refuses to start only if the process belongs to the server's user.
    let mut command = Command::new(account::SHELL);
    account::prepare(&mut command, account);
    command.args(["-c", "read line"]).stdin(Stdio::piped());
    let other = Idle(command.spawn().unwrap());
    let pid = other.0.id();
    let pid_file = directory.path().join("data/postmaster.pid");
    fs::write(
        &pid_file,
        format!("{pid}\n/nowhere\n1\n5432\n/nowhere\n\n1 1\nready\n"),
    )
    .unwrap();

    let cluster = start(directory.path()).await.unwrap();
    assert_ne!(postmaster_pid(&cluster), pid);
    assert!(process_runs(pid));
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let parent = reachable_directory();
    let directory = parent.path().join("long-".repeat(30)).join("and, odd");
    let cluster = start(&directory).await.unwrap();
    let socket = cluster.server.socket.clone();
    assert!(!socket.starts_with(parent.path()), "{}", socket.display());
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        scalar(&cluster.url("postgres"), "SELECT 'served'")
            .await
            .unwrap(),
        "served"
    );
    assert!(Cluster::locate(&directory, "postgres").is_some());
    cluster.stop().await.unwrap();
    assert!(!socket.exists(), "litter: {}", socket.display());
}

#[tokio::test]
async fn a_directory_that_the_servers_user_cannot_enter_can_be_used() {
    // Unless root runs the tests, the server's user can enter the directory, and nothing is moved.
    let directory = directory(0o700);
    let cluster = start(directory.path()).await.unwrap();
    let data = fs::canonicalize(directory.path().join("data")).unwrap();
    assert_eq!(
        data.starts_with(directory.path()),
        cluster.layout.account.is_none()
    );
    execute(
        &cluster.url("postgres"),
        "CREATE TABLE kept AS SELECT 'still here' AS words",
    )
    .await;
    cluster.stop().await.unwrap();

    // Once the directory is open, the socket is in it again. The data stay where they are.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = start(directory.path()).await.unwrap();
    let words = scalar(&cluster.url("postgres"), "SELECT words FROM kept").await;
    assert!(cluster.server.socket.starts_with(directory.path()));
    cluster.stop().await.unwrap();
    if !data.starts_with(directory.path()) {
        fs::remove_dir_all(data.parent().unwrap()).unwrap();
    }
    assert_eq!(words.unwrap(), "still here");
}

#[tokio::test]
async fn a_failed_start_shows_the_servers_log() {
    let directory = reachable_directory();
    let failure = Cluster::start_with(
        directory.path(),
        &[("fsync", "off"), ("no_such_thing", "1")],
    )
    .await
    .unwrap_err();
    let words = failure.to_string();
    assert!(words.contains("no_such_thing"), "{words}");
    // The failed start leaves nothing that prevents the next one.
    let cluster = start(directory.path()).await.unwrap();
    cluster.stop().await.unwrap();

    fs::write(directory.path().join("data/PG_VERSION"), "9\n").unwrap();
    let failure = start(directory.path()).await.unwrap_err().to_string();
    assert!(failure.contains("was made by PostgreSQL 9"), "{failure}");
}
