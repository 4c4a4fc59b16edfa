//! Under systemd: the notifications that it gets, and that a restart refuses no connection.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::{Child, Command};

use crate::support::{Database, soon};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");

async fn terminate(child: &mut Child) {
    let pid = child.id().unwrap().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(sent.unwrap().success());
    assert!(soon("its end", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn systemd_is_notified_of_the_start_the_watchdog_and_the_stop() {
    let database = Database::migrated().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    let mut child = Command::new(PROGRAM)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &database.url,
        ])
        .env_remove("DATABASE_URL")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let next = async || {
        let mut buffer = [0; 256];
        let length = soon("a word", told.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(next().await, "READY=1");
    for _ in 0..3 {
        assert_eq!(next().await, "WATCHDOG=1");
    }
    terminate(&mut child).await;
    while next().await != "STOPPING=1" {}
}

/// Starts the service on a socket that another process listens on.
fn serve_on(socket: OwnedFd, database: &Database) -> Child {
    Command::new("sh")
        .args([
            "-c",
            r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --database-url "$1" 3<&0 </dev/null"#,
            PROGRAM,
            &database.url,
        ])
        .env_remove("DATABASE_URL")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ask(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn assert_answered(mut stream: TcpStream) {
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_during_a_restart_waits_and_is_served() {
    let database = Database::migrated().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut first = serve_on(socket.try_clone().unwrap().into(), &database);
    assert_answered(ask(address).await).await;
    terminate(&mut first).await;
    let waiting = ask(address).await;
    let mut second = serve_on(socket.try_clone().unwrap().into(), &database);
    assert_answered(waiting).await;
    terminate(&mut second).await;
}

#[test]
fn the_units_are_what_systemd_takes() {
    let Ok(version) = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output()
    else {
        eprintln!("systemd-analyze is not there: the units are not checked");
        return;
    };
    assert!(version.status.success());
    let directory = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut paths = Vec::new();
    for name in ["hushnet-realtime.service", "hushnet-realtime.socket"] {
        let unit = std::fs::read_to_string(units.join(name)).unwrap();
        // It must be there to be found good, and here is where it is.
        let unit = unit.replace("/usr/local/bin/hushnet-realtime", PROGRAM);
        let path = directory.path().join(name);
        std::fs::write(&path, unit).unwrap();
        paths.push(path);
    }
    let verified = std::process::Command::new("systemd-analyze")
        .arg("verify")
        .args(paths)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}
