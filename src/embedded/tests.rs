//! Against the PostgreSQL of this machine; each test has a cluster of its own.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

/// Flushing would be most of the tests' time.
const SETTINGS: &[(&str, &str)] = &[("fsync", "off"), ("max_connections", "10")];
const DEADLINE: Duration = Duration::from_secs(30);
/// Tells [`hold_a_cluster_until_killed`] which directory to use.
const HELPER_DIRECTORY: &str = "HUSHNET_TEST_EMBEDDED_DIRECTORY";

/// A directory that PostgreSQL's account can reach, also when root runs the tests.
fn reachable_directory() -> TempDir {
    directory(0o755)
}

fn directory(mode: u32) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    directory
}

async fn start(directory: &Path) -> Result<Cluster, EmbeddedError> {
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

/// As another program would: the address must mean the same to libpq.
async fn psql(url: &str, statement: &str) -> String {
    let binaries = Binaries::find(None).await.unwrap();
    let output = Command::new(binaries.path("psql"))
        .args(["-XAtq", "-d", url, "-c", statement])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn is_running(directory: &Path) -> bool {
    directory.join("data/postmaster.pid").exists()
}

#[tokio::test]
async fn data_outlive_a_restart_and_the_address_serves_sqlx_and_psql() {
    let directory = reachable_directory();
    let cluster = start(directory.path()).await.unwrap();
    let name = r#"a database+"1""#;
    cluster.create_database(name).await.unwrap();
    cluster.create_database(name).await.unwrap();
    let url = cluster.url(name);
    psql(&url, "CREATE TABLE kept AS SELECT 'still here' AS words").await;
    assert_eq!(psql(&url, "SELECT current_database()").await, name);
    assert_eq!(scalar(&url, "SHOW max_connections").await.unwrap(), "10");
    assert_eq!(scalar(&url, "SHOW listen_addresses").await.unwrap(), "");
    assert_eq!(scalar(&url, "SHOW server_encoding").await.unwrap(), "UTF8");
    assert_eq!(
        Cluster::locate(directory.path(), name).as_deref(),
        Some(&*url)
    );
    cluster.stop().await.unwrap();
    assert!(!is_running(directory.path()));
    assert_eq!(Cluster::locate(directory.path(), name), None);

    let cluster = start(directory.path()).await.unwrap();
    let words = scalar(&cluster.url(name), "SELECT words FROM kept").await;
    assert_eq!(words.unwrap(), "still here");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_service_is_refused_until_the_first_is_gone() {
    let directory = reachable_directory();
    let first = start(directory.path()).await.unwrap();
    let second = start(directory.path()).await.unwrap_err();
    assert!(matches!(second, EmbeddedError::InUse { .. }), "{second}");
    assert_eq!(
        scalar(&first.url("postgres"), "SELECT 'unharmed'")
            .await
            .unwrap(),
        "unharmed"
    );

    // Not stopped: the third has to wait for the end of the first's server.
    drop(first);
    let third = start(directory.path()).await.unwrap();
    third.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "no test, but the process that a test kills"]
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
            "embedded::tests::hold_a_cluster_until_killed",
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
    psql(&url, "CREATE TABLE kept AS SELECT 'still here' AS words").await;
    // A client that stays: a fast shutdown does not wait for it.
    let mut client = PgConnection::connect(&url).await.unwrap();
    let pid = Postmaster::read(&directory.path().join("data"))
        .unwrap()
        .pid;

    service.kill().unwrap();
    service.wait().unwrap();
    let stopped = until(DEADLINE, || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(stopped.await, "the server outlived its service");
    assert!(!is_running(directory.path()));
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
    let pid = Postmaster::read(&first.place.data).unwrap().pid;
    let group = first.supervisor.process_id();
    assert_ne!(group_of(std::process::id()), group.to_string());
    assert_eq!(group_of(pid), group.to_string());
    // The whole group is the shells and the server; the server alone must stay.
    for shell in members(group).filter(|&member| member != pid) {
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
    assert_eq!(Postmaster::read(&second.place.data).unwrap().pid, pid);
    assert_eq!(scalar(&url, "SELECT 'served'").await.unwrap(), "served");
    second.stop().await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());

    // What a crash of the machine leaves: here with the number of a living process.
    let stale = directory.path().join("data/postmaster.pid");
    fs::write(
        &stale,
        format!(
            "{}\n/nowhere\n1\n5432\n/nowhere\n\n1 1\nready\n",
            std::process::id()
        ),
    )
    .unwrap();
    let third = start(directory.path()).await.unwrap();
    third.stop().await.unwrap();
}

/// The fields after the command of `/proc/<pid>/stat` begin with state, parent and group.
fn group_of(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    fields.split(' ').nth(2).unwrap_or_default().to_owned()
}

fn members(group: u32) -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |&pid| group_of(pid) == group.to_string())
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let parent = reachable_directory();
    let directory = parent.path().join("long-".repeat(30)).join("and, odd");
    let cluster = start(&directory).await.unwrap();
    let socket = cluster.socket.clone();
    assert!(!socket.starts_with(parent.path()), "{}", socket.display());
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(psql(&cluster.url("postgres"), "SELECT 1").await, "1");
    assert!(Cluster::locate(&directory, "postgres").is_some());
    cluster.stop().await.unwrap();
    assert!(!socket.exists(), "litter: {}", socket.display());
}

#[tokio::test]
async fn a_directory_closed_to_the_servers_account_is_served() {
    // Without root the server's account is our own, and nothing is moved.
    let directory = directory(0o700);
    let cluster = start(directory.path()).await.unwrap();
    let data = fs::canonicalize(directory.path().join("data")).unwrap();
    assert_eq!(
        data.starts_with(directory.path()),
        cluster.place.account.is_none()
    );
    psql(
        &cluster.url("postgres"),
        "CREATE TABLE kept AS SELECT 'still here' AS words",
    )
    .await;
    cluster.stop().await.unwrap();

    // Opened, the socket comes back; the data stay where they are.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cluster = start(directory.path()).await.unwrap();
    let words = scalar(&cluster.url("postgres"), "SELECT words FROM kept").await;
    assert!(cluster.socket.starts_with(directory.path()));
    cluster.stop().await.unwrap();
    if !data.starts_with(directory.path()) {
        fs::remove_dir_all(data.parent().unwrap()).unwrap();
    }
    assert_eq!(words.unwrap(), "still here");
}

#[tokio::test]
async fn a_failed_start_shows_what_the_server_said() {
    let directory = reachable_directory();
    let failure = Cluster::start_with(
        directory.path(),
        &[("fsync", "off"), ("no_such_thing", "1")],
    )
    .await
    .unwrap_err();
    let words = failure.to_string();
    assert!(words.contains("no_such_thing"), "{words}");
    // Nothing is left that would be in the way of a better start.
    let cluster = start(directory.path()).await.unwrap();
    cluster.stop().await.unwrap();

    fs::write(directory.path().join("data/PG_VERSION"), "9\n").unwrap();
    let failure = start(directory.path()).await.unwrap_err().to_string();
    assert!(failure.contains("was made by PostgreSQL 9"), "{failure}");
}
