//! nginx or HAProxy, with the example's file.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use hushnet_testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use uuid::Uuid;

/// Debian's account without rights, for tests that run as root.
const NOBODY: u32 = 65_534;
/// Debian's place for such programs, which is not in every PATH.
const SYSTEM_PROGRAMS: &str = "/usr/sbin";
const STATS_SOCKET: &str = "admin.sock";

/// Runs its arguments as a program, and ends that when its input ends: the kernel closes the test's end of the pipe
/// however the test ends. nginx has more processes than one, which it ends itself at SIGTERM.
const LAUNCH: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
(
  while read -r _ <&3; do :; done
  kill "$program"
) 2>/dev/null &
watcher=$!
exec 3<&-
wait "$program"
kill "$watcher" 2>/dev/null
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    HaProxy,
}

impl Kind {
    /// The example, as an operator finds it.
    pub fn file(self) -> String {
        let name = match self {
            Self::Nginx => "nginx.conf",
            Self::HaProxy => "haproxy.cfg",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/balancers");
        fs::read_to_string(folder.join(name)).unwrap()
    }

    /// Whether it names a client by the PROXY protocol.
    pub fn proxy_protocol(self) -> bool {
        self == Self::HaProxy
    }

    fn command(self, file: &Path) -> Vec<String> {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Nginx => ("nginx", &["-e", "stderr", "-g", "daemon off;", "-c"]),
            Self::HaProxy => ("haproxy", &["-db", "-f"]),
        };
        let system = Path::new(SYSTEM_PROGRAMS).join(program);
        let program = if system.exists() {
            system
        } else {
            PathBuf::from(program)
        };
        let program = program.display().to_string();
        let arguments = arguments.iter().map(ToString::to_string);
        let file = file.display().to_string();
        [program]
            .into_iter()
            .chain(arguments)
            .chain([file])
            .collect()
    }

    /// What of the file is another for a test: addresses and paths, the account, which is the test's own, and the
    /// number of descriptors, which an account without rights cannot raise.
    fn changes(self, directory: &Path, address: SocketAddr) -> Vec<(&'static str, String)> {
        let at = |name: &str| directory.join(name).display().to_string();
        match self {
            Self::Nginx => {
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let paths = paths.map(|name| format!("{name}_temp_path {};\n", at(name)));
                vec![
                    ("user www-data;\n", String::new()),
                    ("worker_rlimit_nofile 131072;\n", String::new()),
                    (
                        "worker_connections 65536;",
                        "worker_connections 4096;".into(),
                    ),
                    ("/run/nginx.pid", at("pid")),
                    ("/var/log/nginx/error.log", at("error.log")),
                    ("/var/log/nginx/access.log", at("access.log")),
                    ("http {\n", format!("http {{\n{}", paths.concat())),
                    ("listen 80;", format!("listen {address};")),
                ]
            }
            Self::HaProxy => vec![
                ("user haproxy\n", "\n".into()),
                ("group haproxy\n", "\n".into()),
                (
                    "stats socket /run/haproxy/admin.sock",
                    format!("stats socket {}", at(STATS_SOCKET)),
                ),
                ("maxconn 50000", "maxconn 4096".into()),
                ("log /dev/log local0", "log stderr format raw local0".into()),
                ("bind :80", format!("bind {address}")),
            ],
        }
    }
}

/// A balancer before two nodes. Ended when dropped.
pub struct Balancer {
    pub address: SocketAddr,
    shell: Child,
    /// Removed after the program has ended.
    directory: tempfile::TempDir,
}

impl Balancer {
    pub async fn start(kind: Kind, nodes: [SocketAddr; 2]) -> Self {
        let directory = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let path = directory.path();
        let address = free_address();
        let mut text = kind.file();
        let mut changes = kind.changes(path, address);
        changes.push(("192.0.2.11:8080", nodes[0].to_string()));
        changes.push(("192.0.2.12:8080", nodes[1].to_string()));
        for (from, to) in changes {
            assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
            text = text.replace(from, &to);
        }
        let file = path.join("balancer.conf");
        fs::write(&file, text).unwrap();
        let log = File::create(path.join("log")).unwrap();
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", LAUNCH, "balancer"])
            .args(kind.command(&file))
            // Ctrl-C in a terminal is sent to the whole foreground process group.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            shell.uid(NOBODY).gid(NOBODY);
        }
        let shell = shell.spawn().unwrap();
        let mut balancer = Self {
            address,
            shell,
            directory,
        };
        until("the balancer listens", async || {
            let ended = balancer.shell.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended: {}", balancer.log());
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        balancer
    }

    /// Until HAProxy has the node among those that get clients, and no check of it has failed since one succeeded: a check
    /// that was sent before the node was ready may be answered after it.
    pub async fn until_up(&self, node: &str) {
        until(&format!("{node} is up for HAProxy"), async || {
            self.status(node).await.unwrap() == "UP"
        })
        .await;
    }

    async fn status(&self, node: &str) -> io::Result<String> {
        let mut socket = UnixStream::connect(self.directory.path().join(STATS_SOCKET)).await?;
        socket.write_all(b"show stat\n").await?;
        let mut table = String::new();
        socket.read_to_string(&mut table).await?;
        let mut rows = table.lines().map(|row| row.split(',').collect::<Vec<_>>());
        let column = rows
            .next()
            .unwrap()
            .iter()
            .position(|name| *name == "status");
        let row = rows.find(|row| row.get(1) == Some(&node)).unwrap();
        Ok(row[column.unwrap()].to_owned())
    }

    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("log") + &read("error.log")
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let remarkable = log.lines().filter(|line| !line.contains(" 101 "));
            eprintln!(
                "the balancer says, of other than WebSockets:\n{}",
                remarkable.collect::<Vec<_>>().join("\n")
            );
        }
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A free port of an address of this machine that nobody else is likely to use: what is taken between the choice of a
/// port and its use is taken at 127.0.0.1.
pub fn free_address() -> SocketAddr {
    let [a, b, c, ..] = *Uuid::new_v4().as_bytes();
    let address = [127, a.max(1), b, c.clamp(1, 254)];
    let listener = TcpListener::bind((std::net::Ipv4Addr::from(address), 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Runs a test over both.
#[macro_export]
macro_rules! behind_both {
    ($($(#[$meta:meta])* async fn $name:ident($kind:ident: Kind) $body:block)+) => {
        $(
            $(#[$meta])*
            mod $name {
                use super::*;

                async fn test($kind: Kind) $body

                #[tokio::test]
                async fn behind_nginx() {
                    test(Kind::Nginx).await;
                }

                #[tokio::test]
                async fn behind_haproxy() {
                    test(Kind::HaProxy).await;
                }
            }
        )+
    };
}
