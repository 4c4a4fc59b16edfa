//! Where the cluster, its socket and its log are, and the account that they belong to.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use uuid::Uuid;

use super::binaries::Binaries;
use super::{EmbeddedError, PORT, SUPERUSER};

pub(super) const SHELL: &str = "/bin/sh";
/// Clusters that root starts for directories that PostgreSQL's account cannot reach.
const STATE_DIRECTORY: &str = "/var/lib/hushnet-realtime";
/// Accounts to run PostgreSQL under for root, the first that exists.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
/// Longest path of a socket: 107 bytes on Linux, 103 on macOS and the BSDs.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// Most of a log that is read for its last lines.
const TAIL_BYTES_MAX: u64 = 64 * 1024;
/// All that PostgreSQL and the shell need of our environment, which may hold secrets, and variables
/// that would change what PostgreSQL does.
const VARIABLES: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "TZ"];

/// An account other than our own; only root can act as one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

/// The paths of one cluster.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory that was asked for, resolved: locks and log.
    directory: PathBuf,
    /// The directory that the account reaches: the same, or one in [`STATE_DIRECTORY`].
    home: PathBuf,
    /// The cluster, resolved; it may not exist yet.
    pub(super) data: PathBuf,
    /// Whom the server runs as, if not as we do.
    pub(super) account: Option<Account>,
}

impl Place {
    /// Decides where the cluster of `directory` is or shall be.
    pub(super) async fn find(directory: PathBuf) -> Result<Self, EmbeddedError> {
        let link = directory.join("data");
        let existing = match fs::canonicalize(&link) {
            Ok(data) => Some(data),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(EmbeddedError::io("resolve", &link)(error)),
        };
        let account = account(existing.as_deref())?;
        let home = match existing.as_deref().and_then(Path::parent) {
            _ if can_reach(account, &directory).await => directory.clone(),
            Some(parent) => parent.to_owned(),
            None => state_directory(&directory)?,
        };
        let data = match existing {
            Some(data) => data,
            None => home.join("data"),
        };
        if data.parent() != Some(&directory) && !link.exists() {
            // Also the way back to a cluster whose link was lost.
            remove_link(&link)?;
            make_link(&link, &data)?;
        }
        Ok(Self {
            directory,
            home,
            data,
            account,
        })
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// The major version that made the cluster; `None` if there is no cluster yet.
    pub(super) fn major(&self) -> Result<Option<String>, EmbeddedError> {
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(_) if !self.data.exists() => Ok(None),
            Err(error) => Err(EmbeddedError::io("read", &path)(error)),
        }
    }

    /// Runs initdb, whose work counts only when it is complete: until then it has another name.
    pub(super) async fn create(
        &self,
        binaries: &Binaries,
        flush: bool,
        lock: &File,
    ) -> Result<(), EmbeddedError> {
        let unfinished = self.home.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(EmbeddedError::io("remove", &unfinished))?;
        }
        self.make_private(&unfinished)
            .map_err(EmbeddedError::io("create", &unfinished))?;
        let program = binaries.path("initdb");
        let mut command = Command::new(&program);
        prepare(&mut command, self.account);
        command.arg("--pgdata").arg(&unfinished);
        command.args(["--username", SUPERUSER, "--encoding", "UTF8"]);
        command.args(["--locale", "C", "--no-instructions"]);
        command.args(["--auth-local", "trust", "--auth-host", "reject"]);
        if !flush {
            command.arg("--no-sync");
        }
        // initdb reads nothing; holding the lock, it keeps the next service away if we are killed.
        let lock = lock
            .try_clone()
            .map_err(EmbeddedError::io("share", &self.data))?;
        command.stdin(lock);
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .map_err(EmbeddedError::io("run", &program))?;
        if !output.status.success() {
            return Err(EmbeddedError::Initdb {
                data: unfinished,
                status: output.status,
                output: String::from_utf8_lossy(&output.stderr)
                    .trim_end()
                    .to_owned(),
            });
        }
        fs::rename(&unfinished, &self.data).map_err(EmbeddedError::io("rename", &unfinished))
    }

    /// The directory of the socket: beside the data if its path is short and plain enough, else
    /// one of its own among the system's temporary files.
    pub(super) async fn make_socket_directory(&self) -> Result<PathBuf, EmbeddedError> {
        let usual = self.home.join("socket");
        let link = self.directory.join("socket");
        if is_usable(&usual) {
            // One to a place that was needed when the directory was elsewhere, or closed.
            remove_link(&link)?;
            self.make_private(&usual)
                .map_err(EmbeddedError::io("create", &usual))?;
            if usual != link {
                make_link(&link, &usual)?;
            }
            return Ok(usual);
        }
        // That of a service that was killed, unless somebody else has put his there since.
        if let Ok(left) = fs::read_link(&link)
            && self.is_private(&left)
        {
            return Ok(left);
        }
        let name = format!("hushnet-realtime-{:.12}", Uuid::new_v4().simple());
        let mut failure = io::ErrorKind::InvalidFilename.into();
        for parent in [env::temp_dir(), "/tmp".into()] {
            let short = parent.join(&name);
            if !is_usable(&short) || !can_reach(self.account, &parent).await {
                continue;
            }
            match self.make_private(&short) {
                Ok(()) => {
                    remove_link(&link)?;
                    return make_link(&link, &short).map(|()| short);
                }
                Err(error) => failure = error,
            }
        }
        Err(EmbeddedError::io(
            "make a directory with a short name for the socket of",
            &self.directory,
        )(failure))
    }

    /// Removes the socket's directory if it is among the temporary files, where it would be litter.
    pub(super) fn remove_short_socket(&self, socket: &Path) {
        if socket != self.home.join("socket") {
            // Litter is all that a failure leaves.
            let _ = fs::remove_dir(socket);
        }
    }

    /// Bounds the log: PostgreSQL would write on for ever.
    pub(super) fn set_long_log_aside(&self) -> Result<(), EmbeddedError> {
        let log = self.log();
        if log_bytes(&log) <= super::LOG_BYTES_MAX {
            return Ok(());
        }
        fs::rename(&log, log.with_extension("log.1")).map_err(EmbeddedError::io("rename", &log))
    }

    /// Makes a directory for the server's account alone, if it is not there.
    fn make_private(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_private(path) => {
                return Ok(());
            }
            made => made?,
        }
        match self.account {
            // Never through a link: root may be in a directory that somebody else can change.
            Some(account) => lchown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }

    fn is_private(&self, path: &Path) -> bool {
        let Ok(found) = fs::symlink_metadata(path) else {
            return false;
        };
        let is_owner = match self.account {
            Some(account) => found.uid() == account.uid,
            None => found.uid() == geteuid().as_raw(),
        };
        // The six bits are those of the group and of others.
        found.is_dir() && is_owner && found.mode().trailing_zeros() >= 6
    }
}

/// Whom to run the server as: the owner of an existing cluster, or an account without rights.
fn account(existing: Option<&Path>) -> Result<Option<Account>, EmbeddedError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    if let Some(data) = existing {
        let owner = fs::metadata(data).map_err(EmbeddedError::io("read", data))?;
        return Ok(Some(Account {
            uid: owner.uid(),
            gid: owner.gid(),
        }));
    }
    let path = Path::new("/etc/passwd");
    let passwd = fs::read_to_string(path).map_err(EmbeddedError::io("read", path))?;
    ACCOUNTS
        .iter()
        .find_map(|name| parse_account(&passwd, name))
        .map(Some)
        .ok_or(EmbeddedError::NoAccount)
}

fn parse_account(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        Some(Account {
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    })
}

/// Tries it as the account: no reading of modes knows what an access list or a mount allows.
async fn can_reach(account: Option<Account>, directory: &Path) -> bool {
    if account.is_none() {
        return true;
    }
    let mut command = Command::new(SHELL);
    command.args(["-c", r#"cd -- "$1""#, "sh"]).arg(directory);
    prepare(&mut command, account);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let status = tokio::process::Command::from(command).status().await;
    status.is_ok_and(|status| status.success())
}

/// Gives a command the account, little of our environment, and a current directory that it can
/// read: PostgreSQL refuses to start from one that it cannot.
pub(super) fn prepare(command: &mut Command, account: Option<Account>) {
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    command.envs(
        VARIABLES
            .iter()
            .filter_map(|name| Some((name, env::var_os(name)?))),
    );
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
}

/// A directory outside of `directory`, found again by its path.
fn state_directory(directory: &Path) -> Result<PathBuf, EmbeddedError> {
    let mut hash = Fnv1a::default();
    hash.write(directory.as_os_str().as_encoded_bytes());
    let path = Path::new(STATE_DIRECTORY).join(format!("{:016x}", hash.finish()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&path)
        .map_err(EmbeddedError::io("create", &path))?;
    fs::canonicalize(&path).map_err(EmbeddedError::io("resolve", &path))
}

/// The standard library's hash may change with the compiler, which would lose the cluster.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv1a {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Plain characters only: a comma separates hosts in an address, a quote ends a setting.
fn is_usable(socket_directory: &Path) -> bool {
    let bytes = socket_directory.as_os_str().as_encoded_bytes();
    let name_bytes = format!("/.s.PGSQL.{PORT}").len();
    bytes.len() + name_bytes <= SOCKET_PATH_BYTES_MAX
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte))
}

/// Removes a link, wherever it points to; never what is no link.
fn remove_link(link: &Path) -> Result<(), EmbeddedError> {
    if fs::read_link(link).is_err() {
        return Ok(());
    }
    fs::remove_file(link).map_err(EmbeddedError::io("remove", link))
}

fn make_link(link: &Path, target: &Path) -> Result<(), EmbeddedError> {
    symlink(target, link).map_err(EmbeddedError::io("link", link))
}

/// Opens a file that others have no business with, at its end.
pub(super) fn open_append(path: &Path) -> Result<File, EmbeddedError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(path).map_err(EmbeddedError::io("open", path))
}

/// 0 if there is no log yet.
pub(super) fn log_bytes(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |found| found.len())
}

/// The last `lines_max` lines after the byte `start`.
pub(super) fn log_tail(log: &Path, start: u64, lines_max: usize) -> String {
    let start = start.max(log_bytes(log).saturating_sub(TAIL_BYTES_MAX));
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return format!("(cannot read it: {error})");
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}
