//! One PgBouncer in session mode before each cluster, if the environment asks for it (`make test-pooler`). The service's
//! connections then go through it, and those of the tests do not.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::{env, fs};

use hushnet_testkit::roles::{APPLICATION, OWNER, SERVICE};
use hushnet_testkit::wait::until;
use sqlx::postgres::PgConnectOptions;

use super::pooler::{PORT, pgbouncer};

/// Its only value is `session`: in the other modes the service is red.
const VARIABLE: &str = "TEST_POOLER";
/// Of the private clusters.
const SUPERUSER: &str = "hushnet";
/// Ends PgBouncer with this process, whose end closes the pipe.
const SUPERVISOR: &str = r#""$@" & read -r line; kill $!"#;

/// Those of this process, by the directory of the cluster's socket. Each ends with the process.
static RUNNING: Mutex<BTreeMap<PathBuf, Child>> = Mutex::new(BTreeMap::new());

/// Whether the service's connections go through PgBouncer.
fn is_asked_for() -> bool {
    env::var(VARIABLE).is_ok_and(|mode| {
        assert_eq!(mode, "session", "{VARIABLE} knows no other mode");
        true
    })
}

/// Whether the test is skipped because the service's connections go through PgBouncer; a line on standard error then says
/// why. The caller returns.
pub fn skips(test: &str, reason: &str) -> bool {
    let skipped = is_asked_for();
    if skipped {
        // A line of `eprintln!` is not shown when the test passes.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "SKIPPED {test}: {reason}").unwrap();
    }
    skipped
}

/// The service's address of a database: through PgBouncer if that is asked for. Databases that are not in a private
/// cluster, and those behind a PgBouncer of the test's own, keep their address.
pub fn address(url: String) -> String {
    if !is_asked_for() {
        return url;
    }
    let options: PgConnectOptions = url.parse().unwrap();
    let Some(directory) = options.get_socket().filter(|_| options.get_port() != PORT) else {
        return url;
    };
    start_once(directory, options.get_port());
    let mut address: reqwest::Url = url.parse().unwrap();
    address.set_port(Some(PORT)).unwrap();
    address.into()
}

/// Starts one before the cluster whose socket is in this directory, unless there is one. It listens beside the cluster.
fn start_once(directory: &Path, port: u16) {
    let mut running = RUNNING.lock().unwrap();
    if !running.contains_key(directory) {
        running.insert(directory.to_owned(), start(directory, port));
    }
}

fn start(directory: &Path, port: u16) -> Child {
    let place = directory.display();
    // The file names the usual roles. PgBouncer asks the database for others, as the superuser; while the database
    // takes no session, such a login waits for a minute.
    let users = directory.join("pgbouncer-users.txt");
    let lines = [
        "[databases]".to_owned(),
        format!("* = host={place} port={port} auth_user={SUPERUSER}"),
        "[pgbouncer]".to_owned(),
        "listen_addr =".to_owned(),
        format!("listen_port = {PORT}"),
        format!("unix_socket_dir = {place}"),
        format!("logfile = {place}/pgbouncer.log"),
        "auth_type = trust".to_owned(),
        format!("auth_file = {}", users.display()),
        "pool_mode = session".to_owned(),
        "max_client_conn = 2000".to_owned(),
        "default_pool_size = 100".to_owned(),
        // Each test has a database of its own, and all of them share the cluster's connections.
        "server_idle_timeout = 5".to_owned(),
        // The default, 15 s, is what a test that ends sessions would wait for.
        "server_login_retry = 1".to_owned(),
    ];
    let configuration = directory.join("pgbouncer.ini");
    fs::write(&configuration, lines.join("\n") + "\n").unwrap();
    let roles = [SUPERUSER, OWNER, SERVICE, APPLICATION];
    fs::write(
        &users,
        roles.map(|role| format!("\"{role}\" \"\"\n")).concat(),
    )
    .unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SUPERVISOR, "sh", pgbouncer(), "--quiet"])
        .arg(&configuration)
        .stdin(Stdio::piped());
    // It refuses to run as root, and only its own user and root may connect to the cluster.
    let owner = fs::metadata(directory).unwrap();
    if fs::metadata("/proc/self").unwrap().uid() != owner.uid() {
        for file in [&configuration, &users] {
            chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        command.uid(owner.uid()).gid(owner.gid());
    }
    let process = command.spawn().unwrap();
    let socket = directory.join(format!(".s.PGSQL.{PORT}"));
    let waiting = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(until("PgBouncer listens", async || {
            UnixStream::connect(&socket).is_ok()
        }));
    };
    // On a thread of its own, because a runtime cannot block inside another runtime.
    std::thread::scope(|scope| scope.spawn(waiting).join().unwrap());
    process
}
